//! What the program around the agent gives it: where its settings are, and its log.

use std::path::PathBuf;
use std::sync::Arc;

/// The agent's surroundings.
#[derive(Clone)]
pub struct Surroundings {
    /// Where the settings were read from; `None` is the environment alone.
    pub file: Option<PathBuf>,
    pub log: Arc<dyn Log>,
}

/// The log of the process, as far as the agent changes and reports it.
pub trait Log: Send + Sync {
    /// Takes up other settings; on an error the log stays as it was.
    fn reconfigure(&self, settings: &settings::Log) -> Result<(), String>;

    /// How many lines wait to be written.
    fn waiting(&self) -> u64;

    /// How many lines were lost.
    fn lost(&self) -> u64;
}
