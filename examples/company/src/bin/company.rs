//! Runs the example company alone.
//!
//! Owns: the command line. The first line of its output is the addresses as one JSON object; it is written when all
//! of them answer. It ends on SIGTERM, SIGINT, or, if asked, when its standard input closes.

use std::{
    error::Error,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, ValueEnum};
use kapell_company::{Company, CompanyOptions, Ports};
use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
};

/// A retailer on loopback: two web shops, an ERP file, accounting, a mail server.
#[derive(Debug, Parser)]
#[command(name = "company")]
struct Arguments {
    /// The folder of its files; made if it is not there
    #[arg(long)]
    dir: PathBuf,
    /// Port of the north shop; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    north_port: u16,
    /// Port of the south shop
    #[arg(long, default_value_t = 0)]
    south_port: u16,
    /// Port of accounting
    #[arg(long, default_value_t = 0)]
    postings_port: u16,
    /// HTTP port of the mail server
    #[arg(long, default_value_t = 0)]
    webmail_port: u16,
    /// SMTP port of the mail server
    #[arg(long, default_value_t = 0)]
    smtp_port: u16,
    /// What ends it
    #[arg(long, value_enum, default_value_t = Until::Signal)]
    until: Until,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Until {
    /// SIGTERM or SIGINT
    Signal,
    /// These, or the end of standard input, so that it does not outlive the process that started it
    StdinEnd,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&*error);
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ports = Ports {
        shop_north: arguments.north_port,
        shop_south: arguments.south_port,
        postings: arguments.postings_port,
        webmail: arguments.webmail_port,
        smtp: arguments.smtp_port,
    };
    let company =
        Company::start(&arguments.dir, CompanyOptions { ports, ..CompanyOptions::default() }).await?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(company.addresses())?)?;
    out.flush()?;
    drop(out);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stdin_end(), if arguments.until == Until::StdinEnd => {}
    }
    company.stop().await;
    // A blocked read of standard input must not hold the process back.
    std::process::exit(0);
}

async fn stdin_end() {
    let mut input = tokio::io::stdin();
    let mut ignored = [0; 256];
    while matches!(input.read(&mut ignored).await, Ok(read) if read > 0) {}
}

/// The error and its causes, on one line.
fn report(error: &dyn Error) {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    // Nowhere is left to report that standard error is gone.
    drop(writeln!(io::stderr(), "company: {line}"));
}
