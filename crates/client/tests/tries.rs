//! When a request is sent again, against a server that refuses the first tries.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its supporting functions too")]
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kapell_client::{Client, ClientError, v1};
use kapell_runtime::{Job, Jobs, Net as _, OnDeath, SystemNet, incoming};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use v1::approval_service_server::{ApprovalService, ApprovalServiceServer};

/// Refuses so many tries with a code.
struct Refusing {
    code: Code,
    left: AtomicU32,
    tries: Arc<AtomicU32>,
}

impl Refusing {
    fn answer<T: Default>(&self) -> Result<Response<T>, Status> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        let refuses = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if refuses.is_ok() { Err(Status::new(self.code, "not now")) } else { Ok(Response::new(T::default())) }
    }
}

#[tonic::async_trait]
impl ApprovalService for Refusing {
    async fn list(
        &self,
        _: Request<v1::ListApprovalsRequest>,
    ) -> Result<Response<v1::ListApprovalsResponse>, Status> {
        self.answer()
    }

    async fn decide(
        &self,
        _: Request<v1::DecideApprovalRequest>,
    ) -> Result<Response<v1::DecideApprovalResponse>, Status> {
        self.answer()
    }
}

async fn refusing(code: Code, times: u32) -> (Client, Arc<AtomicU32>) {
    let (address, tries) = server(code, times).await;
    (Client::connect(&address).await.unwrap(), tries)
}

/// Answers what it was asked after so many refusals.
async fn server(code: Code, times: u32) -> (String, Arc<AtomicU32>) {
    let listener = SystemNet.listen("127.0.0.1:0").await.unwrap();
    let address = listener.address().to_string();
    let tries = Arc::new(AtomicU32::new(0));
    let service = Refusing { code, left: AtomicU32::new(times), tries: tries.clone() };
    Jobs::new().spawn(Job { name: "server", on_panic: OnDeath::StopNode }, async move {
        let served = Server::builder().add_service(ApprovalServiceServer::new(service));
        served.serve_with_incoming(incoming(listener)).await.unwrap();
    });
    (address, tries)
}

/// One that takes connections and is never heard of again, as one that is stopped or cut off.
async fn silent() -> String {
    let mut listener = SystemNet.listen("127.0.0.1:0").await.unwrap();
    let address = listener.address().to_string();
    Jobs::new().spawn(Job { name: "silence", on_panic: OnDeath::StopNode }, async move {
        let mut open = Vec::new();
        while let Ok(connection) = listener.accept().await {
            open.push(connection);
        }
    });
    address
}

#[tokio::test]
async fn reading_goes_on_when_the_server_comes_back() {
    let (client, tries) = refusing(Code::Unavailable, 2).await;
    client.approvals().list(v1::ListApprovalsRequest::default()).await.unwrap();
    assert_eq!(tries.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_answer_is_not_sent_again_when_it_may_have_been_heard() {
    let (client, tries) = refusing(Code::Unavailable, 1).await;
    let error = client.approvals().decide(v1::DecideApprovalRequest::default()).await.unwrap_err();
    assert_eq!(error, ClientError::Unavailable { message: "not now".to_owned() });
    assert_eq!(tries.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_answer_is_sent_again_when_it_was_certainly_not_heard() {
    let (client, tries) = refusing(Code::ResourceExhausted, 1).await;
    client.approvals().decide(v1::DecideApprovalRequest::default()).await.unwrap();
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_deadline_ends_the_tries_with_the_servers_words() {
    let (client, tries) = refusing(Code::ResourceExhausted, u32::MAX).await;
    let client = client.with_deadline(Duration::from_millis(300));
    let error = client.approvals().list(v1::ListApprovalsRequest::default()).await.unwrap_err();
    assert_eq!(error, ClientError::Busy { message: "not now".to_owned(), retry_after: None });
    assert!(tries.load(Ordering::SeqCst) >= 2);
}

#[tokio::test]
async fn a_wrong_request_is_sent_once() {
    let (client, tries) = refusing(Code::InvalidArgument, u32::MAX).await;
    let error = client.approvals().list(v1::ListApprovalsRequest::default()).await.unwrap_err();
    assert_eq!(error, ClientError::Invalid { message: "not now".to_owned() });
    assert_eq!(tries.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn nobody_there_is_said_with_the_address() {
    let listener = SystemNet.listen("127.0.0.1:0").await.unwrap();
    let address = listener.address().to_string();
    drop(listener);
    assert_eq!(
        Client::connect(&address).await.unwrap_err().to_string(),
        format!("nobody answers at {address}")
    );
    assert!(Client::connect("no address").await.unwrap_err().to_string().contains("write HOST:PORT"));
}

#[tokio::test]
async fn another_coordinator_answers_for_one_that_is_gone_refuses_or_is_silent() {
    let gone = SystemNet.listen("127.0.0.1:0").await.unwrap().address().to_string();
    let (refuses, refused) = server(Code::Unavailable, u32::MAX).await;
    let (answers, answered) = server(Code::Unavailable, 0).await;
    let client = Client::connect(&format!("{gone}, {refuses},{},{answers}", silent().await)).await.unwrap();
    // Over before the silent one's connection counts as broken.
    let client = client.with_deadline(Duration::from_secs(5));
    client.approvals().list(v1::ListApprovalsRequest::default()).await.unwrap();
    assert_eq!(refused.load(Ordering::SeqCst), 1);
    client.approvals().list(v1::ListApprovalsRequest::default()).await.unwrap();
    // The others are not asked any more.
    assert_eq!((refused.load(Ordering::SeqCst), answered.load(Ordering::SeqCst)), (1, 2));
}

#[tokio::test]
async fn what_must_not_be_done_twice_fails_where_it_failed_and_the_next_request_goes_elsewhere() {
    let (refuses, refused) = server(Code::Unavailable, u32::MAX).await;
    let (answers, answered) = server(Code::Unavailable, 0).await;
    let client = Client::connect(&format!("{refuses},{answers}")).await.unwrap();
    client.approvals().decide(v1::DecideApprovalRequest::default()).await.unwrap_err();
    assert_eq!((refused.load(Ordering::SeqCst), answered.load(Ordering::SeqCst)), (1, 0));
    client.approvals().decide(v1::DecideApprovalRequest::default()).await.unwrap();
    assert_eq!((refused.load(Ordering::SeqCst), answered.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn an_address_that_is_none_is_said_even_among_others_that_answer() {
    let (answers, _) = server(Code::Unavailable, 0).await;
    let error = Client::connect(&format!("{answers},no address")).await.unwrap_err().to_string();
    assert!(error.contains("`no address` is no address"), "{error}");
}

#[tokio::test]
async fn a_request_that_takes_long_is_not_taken_elsewhere_while_it_is_worked_on() {
    let (answers, _) = server(Code::Unavailable, 0).await;
    let client = Client::connect(&format!("{},{answers}", silent().await)).await.unwrap();
    // Longer than a coordinator gets for a short one.
    let within = Duration::from_millis(3_500);
    let error = client.with_deadline(within).admin().doctor().await.unwrap_err();
    assert_eq!(error, ClientError::TimedOut { after: within });
}
