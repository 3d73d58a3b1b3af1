//! `snapferry emulate`: an emulated region that runs until it is ended.

use snapferry_emulator::{Config, Emulator};
use tokio_util::sync::CancellationToken;

use super::args::EmulateArgs;
use super::output::Output;
use crate::error::{Error, ErrorKind, Result};

pub(super) async fn emulate(
    args: Box<EmulateArgs>,
    output: Output,
    cancel: &CancellationToken,
) -> Result<()> {
    let config = Config { listen: args.listen, ..Config::default() };
    let emulator = Emulator::start(config)
        .await
        .map_err(|error| Error::new(ErrorKind::Usage, "start the emulator", error.to_string()))?;
    output.line(&format!("listening on {}", emulator.endpoint()))?;
    cancel.cancelled().await;
    Ok(())
}
