//! What operators ask of the cluster: which nodes there are, who owns which shard.
use std::collections::BTreeMap;

use clap::Subcommand;
use kapell_client::v1;
use serde_json::json;

use super::connection::ClientSettings;
use super::failure::{Exit, Failure};
use super::output::{Paint, Table};

/// What can be done with the cluster.
#[derive(Subcommand, Debug)]
pub(crate) enum ClusterCommand {
    /// Say which nodes there are and who owns which shard; exit code 1 when some shard has no owner.
    ///
    /// It is what the asked node knows. A node that lost touch with etcd says that it has not joined.
    /// Example: kapell cluster status
    #[command(verbatim_doc_comment)]
    Status,
}

impl ClusterCommand {
    pub(crate) async fn run(self, to: &ClientSettings) -> Result<(), Failure> {
        match self {
            ClusterCommand::Status => status(to).await,
        }
    }
}

async fn status(to: &ClientSettings) -> Result<(), Failure> {
    let answer = to.client().await?.admin().cluster().await?;
    let members = answer.members.iter().map(|member| {
        let v1::ClusterMember { node, address, version, leaving } = member;
        json!({ "node": node, "address": address, "version": version, "leaving": leaving })
    });
    let shards = answer.shards.iter().map(|shard| {
        json!({ "shard": shard.shard, "node": shard.node, "epoch": shard.epoch, "preferred": shard.preferred })
    });
    let view = json!({
        "node": answer.node,
        "joined": answer.joined,
        "members": members.collect::<Vec<_>>(),
        "shards": shards.collect::<Vec<_>>(),
    });
    to.output().show(&view, |paint| text(&answer, paint))?;
    let is_whole = answer.joined && answer.shards.iter().all(|shard| !shard.node.is_empty());
    if is_whole { Ok(()) } else { Err(Failure::Shown(Exit::Unsuccessful)) }
}

fn text(answer: &v1::ClusterResponse, paint: Paint) -> String {
    let mut owned: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for shard in &answer.shards {
        owned.entry(&shard.node).or_default().push(shard.shard);
    }
    let mut nodes = Table::new(&["NODE", "ADDRESS", "VERSION", "SHARDS", "WHICH"]);
    for member in &answer.members {
        let shards = owned.remove(member.node.as_str()).unwrap_or_default();
        nodes.row([
            member.node.clone(),
            member.address.clone(),
            member.version.clone(),
            shards.len().to_string(),
            ranges(&shards),
        ]);
    }
    let mut text = nodes.text(paint);
    for member in answer.members.iter().filter(|member| member.leaving) {
        text.push_str(&format!("leaving: {} hands its shards over\n", member.node));
    }
    let moves = |shard: &&v1::ShardOwner| shard.node != shard.preferred;
    let moving: Vec<u32> = answer.shards.iter().filter(moves).map(|shard| shard.shard).collect();
    if !moving.is_empty() {
        text.push_str(&format!("moving: {} on the way to another node\n", ranges(&moving)));
    }
    for (node, shards) in owned {
        let who = if node.is_empty() { "nobody".to_owned() } else { format!("{node}, which is gone") };
        text.push_str(&format!("{}: {} owned by {who}\n", paint.bad("shards"), ranges(&shards)));
    }
    if !answer.joined {
        text.push_str(&format!("{}: {} is no member now\n", paint.bad("apart"), answer.node));
    }
    text
}

/// `0-3, 7` for 0, 1, 2, 3 and 7.
fn ranges(shards: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for shard in shards {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *shard => *last = *shard,
            Some(_) | None => parts.push((*shard, *shard)),
        }
    }
    let shown = |(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    parts.iter().map(shown).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_that_are_not_where_they_belong_are_said_to_move() {
        let shard = |shard, node: &str, preferred: &str| v1::ShardOwner {
            shard,
            node: node.to_owned(),
            preferred: preferred.to_owned(),
            epoch: 1,
        };
        let member = |node: &str| v1::ClusterMember { node: node.to_owned(), ..v1::ClusterMember::default() };
        let mut answer = v1::ClusterResponse {
            joined: true,
            members: vec![member("a"), member("b")],
            shards: vec![shard(0, "a", "a"), shard(1, "a", "b"), shard(2, "a", "b"), shard(3, "b", "b")],
            ..v1::ClusterResponse::default()
        };
        assert!(text(&answer, Paint::Plain).ends_with("moving: 1-2 on the way to another node\n"));
        answer.members[0].leaving = true;
        assert!(text(&answer, Paint::Plain).contains("leaving: a hands its shards over\nmoving: 1-2"));
        answer.shards.retain(|shard| shard.node == shard.preferred);
        assert!(!text(&answer, Paint::Plain).contains("moving"));
    }

    #[test]
    fn shards_that_follow_each_other_are_one_range() {
        assert_eq!(ranges(&[0, 1, 2, 3, 7, 9, 10]), "0-3, 7, 9-10");
        assert_eq!(ranges(&[5]), "5");
        assert_eq!(ranges(&[]), "");
    }
}
