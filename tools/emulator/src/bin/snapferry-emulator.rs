//! The emulator as a program of its own.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use snapferry_emulator::serve::{AccountSpec, DiskSpec, ServeOptions, serve};
use snapferry_emulator::{Config, Fault, Link};

/// Serve Azure page blobs and managed-disk exports on this machine, until Ctrl-C
#[derive(Debug, Parser)]
#[command(name = "snapferry-emulator", version)]
struct Args {
    /// Address to listen on; loopback only
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10000")]
    listen: SocketAddr,
    /// What keys, names and chances are derived from
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
    /// Serve HTTPS, with a certificate made for this run
    #[arg(long)]
    tls: bool,
    /// A storage account with containers: NAME=CONTAINER,...
    #[arg(long = "account", value_name = "ACCOUNT")]
    accounts: Vec<AccountSpec>,
    /// An account that checks the pages it is sent and drops them, all but the last 4 KiB of each blob
    #[arg(long = "sink", value_name = "ACCOUNT")]
    sinks: Vec<String>,
    /// A managed disk: NAME=SIZE or NAME=FILE (raw or .vhd), and ,snapshots=N after it. With
    /// NAME=SIZE,pattern=PATTERN,changes=PATTERN its content is computed and never stored; patterns are none, dense, mixed,
    /// zeros, scattered:COUNTxSIZE and even:COUNTxSIZE
    #[arg(long = "disk", value_name = "DISK")]
    disks: Vec<DiskSpec>,
    /// A fault: CALL[:OPTION,...]:KIND, such as put-page:skip=3,times=2:server-busy=ingress
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<Fault>,
    /// Latency and limits, such as latency=5ms,bytes-per-second=100MiB,blob-burst=100ms
    #[arg(long, value_name = "LINK")]
    link: Option<Link>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Args { listen, seed, tls, accounts, sinks, disks, faults, link } = Args::parse();
    let config = Config { listen, seed, tls, link: link.unwrap_or_default(), ..Config::default() };
    let options = ServeOptions { config, faults, accounts, sinks, disks };
    // Whoever closed standard output does not want to know.
    let print = |line: String| drop(writeln!(io::stdout(), "{line}"));
    let until = async {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without the signal there is still the end of the process.
            std::future::pending::<()>().await;
        }
    };
    match serve(options, print, until).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("snapferry-emulator: {error}");
            ExitCode::FAILURE
        }
    }
}
