//! Frames: many messages at once, since a frame costs what a message costs.
//!
//! Owns: how many messages a frame takes. Never: waits for more of them than there are.
use std::collections::VecDeque;

use futures::Stream;
use kapell_proto::v1::{ConnectorFrame, ConnectorMessage, call_report, connector_message};
use tokio::sync::mpsc;

/// A frame is full at this size; a larger message travels alone.
const FRAME_BYTES: usize = 64 << 10;

struct Outgoing {
    ready: VecDeque<ConnectorMessage>,
    messages: mpsc::Receiver<ConnectorMessage>,
}

/// Frames of `first` and then of all `messages`, each with what is there at its time.
pub(super) fn frames(
    first: Vec<ConnectorMessage>,
    messages: mpsc::Receiver<ConnectorMessage>,
) -> impl Stream<Item = ConnectorFrame> + Send {
    futures::stream::unfold(Outgoing { ready: first.into(), messages }, |mut outgoing| async move {
        if outgoing.ready.is_empty() {
            outgoing.ready.push_back(outgoing.messages.recv().await?);
        }
        while let Ok(more) = outgoing.messages.try_recv() {
            outgoing.ready.push_back(more);
        }
        let frame = next_frame(&mut outgoing.ready);
        Some((frame, outgoing))
    })
}

fn next_frame(ready: &mut VecDeque<ConnectorMessage>) -> ConnectorFrame {
    let (mut messages, mut bytes) = (Vec::new(), 0);
    while let Some(next) = ready.front() {
        bytes += size(next);
        if !messages.is_empty() && bytes > FRAME_BYTES {
            break;
        }
        messages.extend(ready.pop_front());
    }
    ConnectorFrame { messages }
}

/// About what the message takes on the wire: only reports can be large.
fn size(message: &ConnectorMessage) -> usize {
    let Some(connector_message::Kind::Report(report)) = &message.kind else { return 64 };
    64 + match &report.result {
        Some(call_report::Result::Output(text) | call_report::Result::Unknown(text)) => text.len(),
        Some(call_report::Result::Error(error)) => error.message.len(),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use kapell_proto::v1::{CallReport, Heartbeat};

    use super::*;

    fn beat(sent_ms: u64) -> ConnectorMessage {
        ConnectorMessage { kind: Some(connector_message::Kind::Heartbeat(Heartbeat { sent_ms })) }
    }

    fn report(bytes: usize) -> ConnectorMessage {
        let result = Some(call_report::Result::Output("x".repeat(bytes)));
        let which = Some(call_report::Which::Read(1));
        ConnectorMessage { kind: Some(connector_message::Kind::Report(CallReport { which, result })) }
    }

    #[tokio::test]
    async fn what_is_there_travels_together_in_order_and_large_things_alone() {
        let (send, receive) = mpsc::channel(100);
        for message in [beat(2), report(40_000), report(40_000), report(1 << 20), beat(3)] {
            send.send(message).await.unwrap();
        }
        drop(send);
        let sent: Vec<Vec<_>> = frames(vec![beat(1)], receive).map(|frame| frame.messages).collect().await;
        assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1, 1, 1]);
        assert_eq!(sent[0][..2], [beat(1), beat(2)]);
        assert_eq!(sent[3], [beat(3)]);
    }
}
