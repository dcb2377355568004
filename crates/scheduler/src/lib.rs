//! Chooses which model answers: loads models, keeps them, and falls back from one to the next when one fails.
//!
//! Owns models.toml, the chain of a request, the policy after a failure, the memory plan and the state of every model.
//! Does not look inside a model: what runs them sits behind [`downshift_worker::Launcher`], and tests put fakes there.
//!
//! ```
//! use std::path::Path;
//! use downshift_scheduler::{Config, config::HfCache};
//!
//! let text = r#"
//!     [settings]
//!     models_dir        = "models"    # where relative paths start; default: the folder of the file
//!     default_fallbacks = ["tiny"]    # for models that list none; without this, the models that follow in the file
//!     num_retries       = 1           # the same model again, only where that can help
//!     stall_timeout     = "30s"       # without progress; 0 = none
//!     memory_limit      = "75%"       # or "12GiB"; default "auto": what the machine and its cgroups leave
//!     on_stream_failure = "continue"  # a stream that breaks off is continued, or ends with an "error"
//!
//!     [models.chat]                   # the name callers send; only `path` is required
//!     path        = "Qwen3-8B-Q4_K_M.gguf"
//!     aliases     = ["gpt-4o"]
//!     fallbacks   = ["mid", "tiny"]   # tried in this order; their own lists are not followed
//!     context_window_fallbacks = ["long"]
//!     context     = 32768
//!     min_context = 8192              # it may be loaded smaller than `context`, never below this
//!     parallel    = 4
//!     device      = "auto"
//!     temperature = 0.7
//!
//!     [models.mid]
//!     repo = "Qwen/Qwen3-1.7B-GGUF"   # a file in the Hugging Face cache; never downloaded
//!     file = "Qwen3-1.7B-Q8_0.gguf"
//!
//!     [models.long]
//!     path    = "Qwen3-4B-Q4_K_M.gguf"
//!     context = 131072
//!     kv_type = "q8_0"
//!
//!     [models.tiny]                   # the floor: always ready, on the CPU
//!     path       = "Qwen3-0.6B-Q8_0.gguf"
//!     device     = "cpu"
//!     keep_alive = "forever"
//! "#;
//! let config = Config::from_text(text, Path::new("/etc/downshift"), &HfCache::from_env())?;
//! assert_eq!(config.models()[0].spec.path, Path::new("/etc/downshift/models/Qwen3-8B-Q4_K_M.gguf"));
//! assert_eq!(config.index_of("gpt-4o"), Some(0));
//!
//! let mistake = Config::from_text("[models.chat]\npath = \"a.gguf\"\nfallback = []", Path::new("."), &HfCache::from_env());
//! assert_eq!(
//!     mistake.unwrap_err().to_string(),
//!     "models.toml:3: `models.chat.fallback`: unknown key; did you mean `fallbacks`?"
//! );
//! # Ok::<(), downshift_scheduler::ConfigError>(())
//! ```

pub mod config;
pub mod policy;

mod attempt;
mod chain;
mod clock;
mod counters;
mod embed;
mod file_id;
mod journey;
mod load;
mod loop_guard;
mod outlet;
pub mod plan;
mod residents;
pub mod room;
mod run_loop;
mod running;
mod scheduler;
mod setting;
mod submit;
mod verdict;
mod work;

pub use attempt::{Answer, Attempt, Fallback, Refused, RefusedClass};
pub use chain::Options;
pub use clock::{Bell, Clock, SystemClock};
pub use config::{Config, ConfigError};
pub use counters::Counters;
pub use journey::ATTEMPTS;
pub use run_loop::Environment;
pub use scheduler::{Forecast, ModelState, ModelStatus, ModelVerdict, Scheduler};
pub use submit::{Event, Listener, Submission};
