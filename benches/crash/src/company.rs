//! The business system: the example company's accounting, in a process of its own that is never killed.
//!
//! Owns: its process, how slowly it answers, and reading its book. Never: writes a posting.
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Time between the work and its answer: the window in which a kill leaves an unknown outcome.
const ANSWER_DELAY_MS: u64 = 40;

/// The company has to answer this fast; it works on loopback.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running company.
pub(crate) struct Company {
    /// Base URL of accounting.
    pub(crate) accounting: String,
    client: reqwest::Client,
    _process: Child,
}

impl Company {
    /// Starts it with its files in `dir`.
    pub(crate) async fn start(program: &Path, dir: &Path) -> anyhow::Result<Company> {
        let mut command = Command::new(program);
        command.arg("--dir").arg(dir).args(["--until", "stdin-end"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let output = process.stdout.take().context("the company has no output")?;
        let mut lines = BufReader::new(output).lines();
        let first =
            tokio::time::timeout(PATIENCE, lines.next_line()).await.context("the company is silent")??;
        let addresses: Value = serde_json::from_str(&first.context("the company ended at once")?)?;
        let accounting =
            addresses["postings"].as_str().context("the company names no accounting")?.to_owned();
        let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
        let company = Company { accounting, client, _process: process };
        company.answer_slowly().await?;
        Ok(company)
    }

    async fn answer_slowly(&self) -> anyhow::Result<()> {
        let faults = json!({ "answer_delay_ms": ANSWER_DELAY_MS });
        let url = format!("{}/admin/faults", self.accounting);
        let answer = self.client.put(url).json(&faults).send().await?;
        if !answer.status().is_success() {
            bail!("the company refuses the fault: {}", answer.status());
        }
        Ok(())
    }

    /// How often something was posted under the reference.
    pub(crate) async fn postings(&self, reference: &str) -> anyhow::Result<u64> {
        self.count(&[("ref", reference)]).await
    }

    /// All postings.
    pub(crate) async fn all_postings(&self) -> anyhow::Result<u64> {
        self.count(&[]).await
    }

    async fn count(&self, query: &[(&str, &str)]) -> anyhow::Result<u64> {
        let url = format!("{}/entries/count", self.accounting);
        let answer: Value =
            self.client.get(url).query(query).send().await?.error_for_status()?.json().await?;
        answer["count"].as_u64().context("the company counts in an unknown way")
    }
}
