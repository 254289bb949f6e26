//! Log lines on standard error, as text or JSON, by `tracing`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::Config;

/// Starts logging for the whole process. A panic becomes an error line, for a broken connection task must leave a trace.
///
/// # Errors
/// A filter that cannot be read.
pub fn start(config: &Config) -> Result<(), String> {
    let filter = EnvFilter::try_new(&config.log).map_err(|e| format!("--log: {e}"))?;
    // A log that cannot be written, because its disk is full, is no reason to stop: complaints about it would go to the same place, and panic there.
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    let started = if config.log_json {
        lines.json().try_init()
    } else {
        lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init()
    };
    started.map_err(|e| e.to_string())?;
    std::panic::set_hook(Box::new(|panic| tracing::error!("panic: {panic}")));
    Ok(())
}
