//! The contract between what chooses a model and what runs it: request in, tokens out.
