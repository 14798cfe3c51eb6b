//! Definitions: applied together, validated as a set.
use kapell_model::definition::{Definition, Kind};
use kapell_model::diagnostic::{Diagnostic, Severity};
use kapell_model::source::SourceFile;
use kapell_model::{Json, validate};
use kapell_proto::v1;
use kapell_proto::v1::resource_service_client::ResourceServiceClient;
use kapell_wire::DefinitionRecord;
use tokio::sync::{Mutex, oneshot};
use tonic::{Request as GrpcRequest, Response, Status};

use super::{Parts, forward, spread, status};
use crate::answer::replying;
use crate::definitions::{CONTROL, InForce, place, text};
use crate::shard::{Request, SubmitError};

/// Definitions: applied together, validated as a set.
pub(super) struct Resources(pub(super) Parts);

/// One change at a time: each is validated against what is in force.
static CHANGES: Mutex<()> = Mutex::const_new(());

#[tonic::async_trait]
impl v1::resource_service_server::ResourceService for Resources {
    async fn apply(
        &self,
        request: GrpcRequest<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        if let Some(owner) = forward::owner(&self.0, CONTROL, request.metadata()).await? {
            let mut owner = ResourceServiceClient::new(owner);
            let answer =
                owner.apply(forward::passed_on(request.into_inner())).await.map_err(forward::lost)?;
            self.0.follow(answer.get_ref().revision).await?;
            return Ok(answer);
        }
        let request = request.into_inner();
        let dry_run = request.dry_run;
        let mut answer = apply(&self.0, request).await?;
        if answer.errors.is_empty() && !dry_run {
            let untold = spread::tell_others(&self.0, answer.revision).await?;
            answer.warnings.extend(untold.iter().map(spread::Untold::warning));
        }
        Ok(Response::new(answer))
    }

    async fn get(
        &self,
        request: GrpcRequest<v1::GetResourcesRequest>,
    ) -> Result<Response<v1::GetResourcesResponse>, Status> {
        let request = request.into_inner();
        let namespace = status::namespace(&request.namespace)?;
        let kind = kind_of(&request.kind)?;
        let in_force = self.0.definitions.in_force();
        let wanted = |definition: &Definition| {
            let metadata = definition.metadata();
            kind.is_none_or(|kind| definition.kind() == kind)
                && metadata.namespace == namespace
                && (request.name.is_empty() || metadata.name.as_str() == request.name)
        };
        let resources: Vec<v1::Resource> = stored(&in_force)
            .into_iter()
            .filter(wanted)
            .map(|definition| v1::Resource {
                kind: definition.kind().to_string(),
                namespace: definition.metadata().namespace.to_string(),
                name: definition.metadata().name.to_string(),
                document: text(&definition).to_string(),
            })
            .collect();
        if resources.is_empty() && !request.name.is_empty() {
            let text = format!("there is no `{}` in namespace `{namespace}`", request.name);
            return Err(Status::not_found(text));
        }
        Ok(Response::new(v1::GetResourcesResponse { resources, revision: in_force.revision }))
    }

    async fn delete(
        &self,
        request: GrpcRequest<v1::DeleteResourceRequest>,
    ) -> Result<Response<v1::DeleteResourceResponse>, Status> {
        if let Some(owner) = forward::owner(&self.0, CONTROL, request.metadata()).await? {
            let mut owner = ResourceServiceClient::new(owner);
            let answer =
                owner.delete(forward::passed_on(request.into_inner())).await.map_err(forward::lost)?;
            self.0.follow(answer.get_ref().revision).await?;
            return Ok(answer);
        }
        let answer = delete(&self.0, request.into_inner()).await?;
        // It is deleted: after an error the caller would try again and find nothing.
        for untold in spread::tell_others(&self.0, answer.revision).await.unwrap_or_default() {
            tracing::warn!(node = %untold.node, error = untold.error, "a node was not told what was deleted");
        }
        Ok(Response::new(answer))
    }
}

fn kind_of(text: &str) -> Result<Option<Kind>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let known = Kind::ALL.map(Kind::as_str).join(", ");
    let wrong = || Status::invalid_argument(format!("`{text}` is no kind; known are {known}"));
    Kind::named(text).map(Some).ok_or_else(wrong)
}

fn stored(in_force: &InForce) -> Vec<Definition> {
    in_force.documents.iter().filter_map(|document| serde_json::from_str(document.as_str()).ok()).collect()
}

async fn apply(parts: &Parts, request: v1::ApplyRequest) -> Result<v1::ApplyResponse, Status> {
    let sources: Vec<SourceFile> =
        request.files.into_iter().map(|file| SourceFile { name: file.name, text: file.text }).collect();
    let _one_at_a_time = CHANGES.lock().await;
    let in_force = parts.definitions.in_force();
    let before = stored(&in_force);
    let loaded = match validate::load_over(&sources, before.clone()) {
        Ok(loaded) => loaded,
        Err(found) => {
            let (errors, warnings) =
                found.iter().partition::<Vec<_>, _>(|found| found.severity == Severity::Error);
            return Ok(v1::ApplyResponse {
                errors: errors.into_iter().map(shown).collect(),
                warnings: warnings.into_iter().map(shown).collect(),
                ..v1::ApplyResponse::default()
            });
        }
    };
    let (revision, at) = (in_force.revision + 1, parts.runtime.clock.now());
    let (mut applied, mut changes) = (Vec::new(), Vec::new());
    for definition in &loaded.definitions {
        let known = before.iter().find(|known| place(known) == place(definition));
        let change = match known {
            None => "created",
            Some(known) if known == definition => "unchanged",
            Some(_) => "changed",
        };
        if change != "unchanged" {
            changes.push(DefinitionRecord { document: text(definition), removed: false, revision, at });
        }
        applied.push(v1::AppliedResource {
            kind: definition.kind().to_string(),
            namespace: definition.metadata().namespace.to_string(),
            name: definition.metadata().name.to_string(),
            change: change.to_owned(),
        });
    }
    if !changes.is_empty() && !request.dry_run {
        define(parts, changes).await?;
    }
    Ok(v1::ApplyResponse {
        applied,
        errors: vec![],
        warnings: loaded.warnings.iter().map(shown).collect(),
        revision: parts.definitions.in_force().revision,
    })
}

/// Stores changes in the control shard; they are in force when this returns.
async fn define(parts: &Parts, changes: Vec<DefinitionRecord>) -> Result<(), Status> {
    let unavailable = || status::of_submit(&SubmitError::Unavailable);
    let mailbox = parts.links.shard(CONTROL).ok_or_else(unavailable)?;
    let (reply, answered) = oneshot::channel();
    mailbox.submit(Request::Define(changes, replying(reply))).await;
    answered.await.map_err(|_| unavailable())
}

async fn delete(
    parts: &Parts,
    request: v1::DeleteResourceRequest,
) -> Result<v1::DeleteResourceResponse, Status> {
    let namespace = status::namespace(&request.namespace)?;
    let kind = kind_of(&request.kind)?.ok_or_else(|| Status::invalid_argument("kind must be given"))?;
    let _one_at_a_time = CHANGES.lock().await;
    let in_force = parts.definitions.in_force();
    let (gone, kept): (Vec<Definition>, Vec<Definition>) =
        stored(&in_force).into_iter().partition(|definition| {
            let metadata = definition.metadata();
            definition.kind() == kind
                && metadata.namespace == namespace
                && metadata.name.as_str() == request.name
        });
    let Some(gone) = gone.first() else {
        let text = format!("there is no {kind} `{}` in namespace `{namespace}`", request.name);
        return Err(Status::not_found(text));
    };
    if let Err(needed) = validate::catalogue(kept) {
        return Err(Status::failed_precondition(still_needed(kind, &request.name, needed)));
    }
    let document: Json = text(gone);
    let (revision, at) = (in_force.revision + 1, parts.runtime.clock.now());
    define(parts, vec![DefinitionRecord { document, removed: true, revision, at }]).await?;
    Ok(v1::DeleteResourceResponse { revision: parts.definitions.in_force().revision })
}

/// How many places are named that need a definition.
const NEEDS_SHOWN_MAX: usize = 10;

/// One line for each place that needs it. The hints of the places say how to add what is missing, which is not what
/// somebody wants who deletes it.
fn still_needed(kind: Kind, name: &str, needed: Vec<Diagnostic>) -> String {
    let more = needed.len().saturating_sub(NEEDS_SHOWN_MAX);
    let mut text = format!("{kind} `{name}` is still needed; without it:");
    for place in needed.into_iter().take(NEEDS_SHOWN_MAX) {
        text.push_str(&format!("\n  {}", Diagnostic { hint: None, ..place }));
    }
    if more > 0 {
        text.push_str(&format!("\n  and {more} more"));
    }
    text.push_str("\n  hint: change or delete these first");
    text
}

fn shown(found: &Diagnostic) -> v1::Diagnostic {
    let place = found.place.as_ref();
    v1::Diagnostic {
        file: place.map_or_else(String::new, |place| place.file.clone()),
        line: place.map_or(0, |place| place.line),
        column: place.map_or(0, |place| place.column),
        field: found.field.clone(),
        message: found.message.clone(),
        hint: found.hint.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_definition_is_named_line_by_line_and_not_without_end() {
        let needs = |at| Diagnostic {
            place: None,
            severity: Severity::Error,
            kind: Some(Kind::Workflow),
            name: Some(format!("default/w{at}")),
            field: String::new(),
            message: "there is no skill `a.b`".to_owned(),
            hint: Some("apply both together".to_owned()),
        };
        let two = still_needed(Kind::Specialist, "a", (0..2).map(needs).collect());
        assert_eq!(
            two.lines().collect::<Vec<_>>(),
            [
                "Specialist `a` is still needed; without it:",
                "  Workflow default/w0: there is no skill `a.b`",
                "  Workflow default/w1: there is no skill `a.b`",
                "  hint: change or delete these first",
            ]
        );
        let many = still_needed(Kind::Specialist, "a", (0..NEEDS_SHOWN_MAX + 3).map(needs).collect());
        assert_eq!(many.lines().count(), NEEDS_SHOWN_MAX + 3);
        assert!(many.contains("  and 3 more\n"), "{many}");
    }
}
