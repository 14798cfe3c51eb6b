//! Definitions: apply, get, delete, validate, schema.
use std::path::PathBuf;

use clap::Args;
use kapell_client::v1;
use kapell_model::definition::Kind;
use kapell_model::diagnostic::Severity;
use kapell_model::source::SourceFile;
use kapell_model::{json_schema, validate};
use serde::Serialize;
use serde_json::{Value, json};

use super::connection::ClientSettings;
use super::failure::Failure;
use super::given::definition_files;
use super::output::{Format, Output, Table, say, say_err, visible, yaml};
use super::view::embedded;

/// Which files take effect.
#[derive(Args, Debug)]
pub(crate) struct Apply {
    /// Files, or folders that are searched for .yaml, .yml and .json; - is standard input.
    #[arg(short, long = "file", value_name = "FILE|DIR", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
}

/// Which definitions to show.
#[derive(Args, Debug)]
pub(crate) struct Get {
    /// Such as workflow or connections; left out: every kind.
    kind: Option<String>,
    /// Left out: every name.
    name: Option<String>,
}

/// Which definition to delete.
#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// Such as workflow.
    kind: String,
    /// Its name.
    name: String,
}

/// Which files to check.
#[derive(Args, Debug)]
pub(crate) struct Validate {
    /// Files, or folders that are searched for .yaml, .yml and .json; - is standard input.
    #[arg(short, long = "file", value_name = "FILE|DIR", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
}

/// Which schema to show.
#[derive(Args, Debug)]
pub(crate) struct Schema {
    /// Such as workflow.
    #[arg(value_parser = kind)]
    kind: Kind,
}

fn kind(text: &str) -> Result<Kind, String> {
    let known = || format!("known are {}", Kind::ALL.map(Kind::as_str).join(", "));
    Kind::named(text).ok_or_else(known)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AppliedView {
    applied: Vec<Value>,
    errors: Vec<Value>,
    warnings: Vec<Value>,
    revision: u64,
    dry_run: bool,
}

impl Apply {
    pub(crate) async fn run(self, to: &ClientSettings) -> Result<(), Failure> {
        let request = v1::ApplyRequest { files: definition_files(&self.files)?, dry_run: self.dry_run };
        let answer = to.client().await?.resources().apply(request).await?;
        let applied = answer.applied.iter().map(|one| {
            json!({ "kind": one.kind, "namespace": one.namespace, "name": one.name, "change": one.change })
        });
        let view = AppliedView {
            applied: applied.collect(),
            errors: answer.errors.iter().map(found_view).collect(),
            warnings: answer.warnings.iter().map(found_view).collect(),
            revision: answer.revision,
            dry_run: self.dry_run,
        };
        let output = to.output();
        if output.format == Format::Table {
            say_found(&output, &answer.warnings, "warning: ");
            say_found(&output, &answer.errors, "");
        }
        if answer.errors.is_empty() {
            output.show(&view, |paint| {
                let mut table = Table::new(&["KIND", "NAMESPACE", "NAME", "CHANGE"]);
                for one in &answer.applied {
                    table.row([
                        one.kind.clone(),
                        one.namespace.clone(),
                        one.name.clone(),
                        one.change.clone(),
                    ]);
                }
                let note = if self.dry_run { "nothing was changed: this was a dry run\n" } else { "" };
                format!("{}{note}", table.text(paint))
            })
        } else {
            output.show(&view, |_| String::new())?;
            Err(refused(answer.errors.len(), "nothing was applied"))
        }
    }
}

fn refused(errors: usize, consequence: &str) -> Failure {
    let noun = if errors == 1 { "error" } else { "errors" };
    Failure::invalid(format!("{errors} {noun}; {consequence}"))
}

fn found_view(found: &v1::Diagnostic) -> Value {
    json!({
        "file": found.file, "line": found.line, "column": found.column,
        "field": found.field, "message": found.message, "hint": found.hint,
    })
}

/// `file:line:col: field: message`, and the hint on a line of its own.
fn say_found(output: &Output, found: &[v1::Diagnostic], severity: &str) {
    let paint = output.paint_err();
    for one in found {
        let mut text = String::new();
        if one.line > 0 {
            text.push_str(&paint.strong(&format!("{}:{}:{}: ", one.file, one.line, one.column)));
        }
        text.push_str(severity);
        if !one.field.is_empty() {
            text.push_str(&format!("{}: ", one.field));
        }
        text.push_str(&visible(&one.message));
        text.push('\n');
        if !one.hint.is_empty() {
            text.push_str(&format!("  {} {}\n", paint.strong("hint:"), visible(&one.hint)));
        }
        say_err(&text);
    }
}

impl Get {
    pub(crate) async fn run(self, to: &ClientSettings) -> Result<(), Failure> {
        let one = self.name.is_some();
        let request = v1::GetResourcesRequest {
            kind: self.kind.unwrap_or_default(),
            namespace: to.namespace(),
            name: self.name.unwrap_or_default(),
        };
        let answer = to.client().await?.resources().get(request).await?;
        let documents: Vec<Value> =
            answer.resources.iter().filter_map(|resource| embedded(&resource.document)).collect();
        let output = to.output();
        match (output.format, one, documents.as_slice()) {
            // One definition for people is the definition itself, ready to be changed and applied.
            (Format::Table | Format::Yaml, true, _) | (Format::Yaml, false, _) => say(&stream(&documents)?),
            (Format::Json, true, [document]) => output.show(document, |_| String::new()),
            (Format::Table, false, _) | (Format::Json, _, _) => {
                let view = json!({ "items": documents, "revision": answer.revision });
                output.show(&view, |paint| {
                    let mut table = Table::new(&["KIND", "NAME", "DESCRIPTION"]);
                    for (resource, document) in answer.resources.iter().zip(&documents) {
                        table.row([resource.kind.clone(), resource.name.clone(), about(document)]);
                    }
                    table.text(paint)
                })
            }
        }
    }
}

/// Documents as `kapell apply` reads them.
fn stream(documents: &[Value]) -> Result<String, Failure> {
    let texts = documents.iter().map(yaml).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.join("---\n"))
}

fn about(document: &Value) -> String {
    let spec = &document["spec"];
    let text = spec["description"].as_str().or_else(|| spec["goal"].as_str());
    text.unwrap_or_default().to_owned()
}

impl Delete {
    pub(crate) async fn run(self, to: &ClientSettings) -> Result<(), Failure> {
        let request = v1::DeleteResourceRequest {
            kind: self.kind.clone(),
            namespace: to.namespace(),
            name: self.name.clone(),
        };
        let answer = to.client().await?.resources().delete(request).await?;
        let view = json!({ "kind": self.kind, "name": self.name, "revision": answer.revision });
        to.output().show(&view, |_| format!("{} {} deleted\n", self.kind, self.name))
    }
}

impl Validate {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let files = definition_files(&self.files)?;
        let sources: Vec<SourceFile> =
            files.into_iter().map(|file| SourceFile { name: file.name, text: file.text }).collect();
        let (definitions, found) = match validate::load(&sources) {
            Ok(loaded) => (loaded.definitions.len(), loaded.warnings),
            Err(found) => (0, found),
        };
        let errors = found.iter().filter(|found| found.severity == Severity::Error).count();
        if output.format == Format::Table {
            found.iter().for_each(|found| say_err(&format!("{found}\n")));
        }
        let view = json!({ "definitions": definitions, "findings": found, "valid": errors == 0 });
        output.show(&view, |_| {
            if errors == 0 { format!("{definitions} definitions are valid\n") } else { String::new() }
        })?;
        if errors == 0 { Ok(()) } else { Err(refused(errors, "the definitions cannot be used")) }
    }
}

impl Schema {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        let schema = json_schema(self.kind);
        // A schema is JSON; a table of it would help nobody.
        let format = match output.format {
            Format::Table | Format::Json => Format::Json,
            Format::Yaml => Format::Yaml,
        };
        Output { format, ..*output }.show(&schema, |_| String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failure::Exit;

    #[test]
    fn a_kind_is_found_in_any_case_and_number() {
        assert_eq!(kind("Policies").unwrap(), Kind::Policy);
        assert!(kind("pod").unwrap_err().starts_with("known are Connector, "));
    }

    #[test]
    fn a_stream_of_documents_can_be_read_again() {
        let text = stream(&[json!({ "a": 1 }), json!({ "b": "x: y" })]).unwrap();
        assert_eq!(text, "a: 1\n---\nb: \"x: y\"\n");
    }

    #[test]
    fn one_error_is_one_error() {
        let Failure::Error { exit, message, .. } = refused(1, "nothing was applied") else {
            panic!("no error")
        };
        assert_eq!((exit, message.as_str()), (Exit::Invalid, "1 error; nothing was applied"));
    }
}
