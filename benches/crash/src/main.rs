//! Faults under load: single nodes are killed (`matrix`), a cluster goes through everything that happens to clusters
//! (`chaos`), and the books of the business say whether anything was lost or done twice.
//!
//! Owns: the command line. Never: builds anything (xtask does).
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks through its streams"
)]
mod chaos;
mod cluster;
mod company;
mod definitions;
mod judge;
mod load;
mod matrix;
mod process;
mod report;
mod trial;

use std::process::ExitCode;

use anyhow::bail;
use clap::{Parser, Subcommand};

use crate::chaos::{Chaos, Kind, Pace};
use crate::matrix::Matrix;
use crate::report::Report;
use crate::trial::Given;

/// Let faults happen under load, then judge by the books of the business.
#[derive(Parser)]
struct Crash {
    /// Print one JSON object a line instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Kill coordinator, worker and connector again and again.
    Matrix {
        #[command(flatten)]
        given: Given,
        /// Kills of each role.
        #[arg(long, default_value_t = 3)]
        kills: u32,
    },
    /// Let everything happen to a cluster that happens to clusters. Needs root, and `unshare --net`.
    Chaos {
        #[command(flatten)]
        given: Given,
        /// Times that each fault happens.
        #[arg(long, default_value_t = 20)]
        times: u32,
        /// Only this fault; may be given again.
        #[arg(long, value_enum)]
        fault: Vec<Kind>,
        /// Do not judge how long events wait: for a machine that does other things too.
        #[arg(long)]
        any_pace: bool,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let crash = Crash::parse();
    match crash.what.run().await {
        Ok(report) => {
            print!("{}", if crash.json { report.json_lines() } else { report.table() });
            if report.holds() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

impl What {
    async fn run(self) -> anyhow::Result<Report> {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            bail!("a TLS provider was installed before");
        }
        match self {
            What::Matrix { given, kills } => {
                given.prepare()?;
                given.run(Matrix::start(&given, kills)?).await
            }
            What::Chaos { given, times, fault, any_pace } => {
                given.prepare()?;
                let pace = if any_pace { Pace::Any } else { Pace::InTime };
                given.run(Chaos::start(&given, times, &fault, pace).await?).await
            }
        }
    }
}
