//! The tree of one document, each node with the position where it was written.
//!
//! Owns: what YAML becomes here and how a JSON pointer finds its position. Never: knows what a document means.
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Location, Spanned};

use crate::pointer;

/// Where something was written. Both are counted from 1; a column is a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Counted from 1.
    pub line: u32,
    /// Counted from 1, in characters.
    pub column: u32,
}

impl Position {
    pub(super) fn of(location: Location) -> Position {
        let number = |n: u64| u32::try_from(n.max(1)).unwrap_or(u32::MAX);
        Position { line: number(location.line()), column: number(location.column()) }
    }

    pub(super) fn below(self, lines: u32) -> Position {
        Position { line: self.line.saturating_add(lines), column: self.column }
    }
}

/// One value and where it was written.
#[derive(Debug)]
pub(super) struct Node {
    at: Position,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Leaf(Value),
    List(Vec<Node>),
    Map(Vec<Member>),
}

#[derive(Debug)]
struct Member {
    name: String,
    name_at: Position,
    node: Node,
}

impl Node {
    pub(super) fn is_null(&self) -> bool {
        matches!(self.content, Content::Leaf(Value::Null))
    }

    pub(super) fn to_value(&self) -> Value {
        match &self.content {
            Content::Leaf(value) => value.clone(),
            Content::List(nodes) => Value::Array(nodes.iter().map(Node::to_value).collect()),
            Content::Map(members) => {
                let members = members.iter().map(|member| (member.name.clone(), member.node.to_value()));
                Value::Object(members.collect::<Map<_, _>>())
            }
        }
    }

    /// Where the value stands that the pointer names, or the nearest one around it.
    pub(super) fn value_at(&self, pointer: &str) -> Position {
        self.find(pointer).0
    }

    /// Where the name of the member stands that the pointer names; of a list's item, the item itself.
    pub(super) fn name_at(&self, pointer: &str) -> Position {
        let (value, name) = self.find(pointer);
        name.unwrap_or(value)
    }

    fn find(&self, pointer: &str) -> (Position, Option<Position>) {
        let (mut node, mut name) = (self, None);
        for part in pointer::segments(pointer) {
            let step = match &node.content {
                Content::Leaf(_) => None,
                Content::List(nodes) => {
                    part.parse().ok().and_then(|at: usize| nodes.get(at)).map(|node| (node, None))
                }
                Content::Map(members) => members
                    .iter()
                    .find(|member| member.name == part)
                    .map(|member| (&member.node, Some(member.name_at))),
            };
            match step {
                Some((found, its_name)) => (node, name) = (found, its_name),
                None => break,
            }
        }
        (node.at, name)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Node, D::Error> {
        let spanned = Spanned::<Content>::deserialize(from)?;
        Ok(Node { at: Position::of(spanned.referenced), content: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Content, D::Error> {
        from.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value that JSON can hold")
    }

    fn visit_unit<E: Error>(self) -> Result<Content, E> {
        Ok(Content::Leaf(Value::Null))
    }

    fn visit_none<E: Error>(self) -> Result<Content, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Content, D::Error> {
        Content::deserialize(from)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Content, E> {
        Ok(Content::Leaf(Value::Bool(truth)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Content, E> {
        Ok(Content::Leaf(Value::from(number)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Content, E> {
        Ok(Content::Leaf(Value::from(number)))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Content, E> {
        let number = Number::from_f64(number).ok_or_else(|| E::custom("a number must be finite"))?;
        Ok(Content::Leaf(Value::Number(number)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Leaf(Value::String(text.to_owned())))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Content, E> {
        Ok(Content::Leaf(Value::String(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = items.next_element()? {
            nodes.push(node);
        }
        Ok(Content::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Content, A::Error> {
        let mut members = Vec::new();
        while let Some(name) = entries.next_key::<Spanned<String>>()? {
            let node = entries.next_value()?;
            members.push(Member { name_at: Position::of(name.referenced), name: name.value, node });
        }
        Ok(Content::Map(members))
    }
}
