//! Embed local models that fall back to the next one instead of failing.
