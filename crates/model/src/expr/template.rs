//! Templates: JSON in which strings may hold `${CEL}`.
//!
//! Owns: the rule that a string which is one whole `${…}` takes the value's type, and any other mix is text.
use serde_json::{Map, Value};

use super::{EvalError, Expr, ExprError, References, Scope, shorten};
use crate::json::Json;
use crate::pointer;

/// JSON with expressions inside, compiled once.
#[derive(Clone, Debug)]
pub struct Template {
    source: Json,
    node: Node,
    references: References,
}

/// An expression in a template that does not compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// JSON pointer into the template.
    pub pointer: String,
    /// What is wrong with it.
    pub error: ExprError,
}

/// Every expression in a template that does not compile; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateErrors {
    /// The first.
    pub first: TemplateError,
    /// All further ones.
    pub others: Vec<TemplateError>,
}

#[derive(Clone, Debug)]
enum Node {
    Constant(Value),
    Whole(Expr),
    Text(Vec<Part>),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

#[derive(Clone, Debug)]
enum Part {
    Literal(String),
    Hole(Expr),
}

impl Template {
    /// Compiles every `${…}` in `source`; stops at the first that is wrong.
    pub fn compile(source: &Value) -> Result<Template, ExprError> {
        Template::compile_all(source).map_err(|errors| errors.first.error)
    }

    /// Compiles every `${…}` in `source`, and says each that is wrong.
    pub fn compile_all(source: &Value) -> Result<Template, TemplateErrors> {
        let (mut references, mut errors) = (References::default(), Vec::new());
        let node = compile(source, "", &mut references, &mut errors);
        let mut errors = errors.into_iter();
        match errors.next() {
            Some(first) => Err(TemplateErrors { first, others: errors.collect() }),
            None => Ok(Template { source: Json::of(source), node, references }),
        }
    }

    /// Every expression, with the JSON pointer of the string that holds it.
    #[must_use]
    pub fn expressions(&self) -> Vec<(String, &Expr)> {
        let mut found = Vec::new();
        collect(&self.node, "", &mut found);
        found
    }

    /// Fills the holes of a text, each value passed through `escape` first. What is written around the holes is
    /// taken as it is.
    pub fn eval_text(&self, scope: &Scope, escape: &dyn Fn(&str) -> String) -> Result<String, EvalError> {
        match &self.node {
            Node::Text(parts) => eval_text(parts, scope, escape),
            Node::Whole(expr) => Ok(escape(&text_of(expr.eval(scope)?))),
            Node::Constant(Value::String(text)) => Ok(text.clone()),
            Node::Constant(_) | Node::List(_) | Node::Object(_) => Ok(text_of(self.eval(scope)?)),
        }
    }

    /// What it was compiled from.
    #[must_use]
    pub fn source(&self) -> &Json {
        &self.source
    }

    /// Everything that its expressions look at.
    #[must_use]
    pub fn references(&self) -> &References {
        &self.references
    }

    /// The value without holes, where it has none.
    #[must_use]
    pub fn constant(&self) -> Option<&Json> {
        match self.node {
            Node::Constant(_) => Some(&self.source),
            Node::Whole(_) | Node::Text(_) | Node::List(_) | Node::Object(_) => None,
        }
    }

    /// Fills the holes.
    pub fn eval(&self, scope: &Scope) -> Result<Value, EvalError> {
        eval(&self.node, scope)
    }

    /// Fills the holes and writes the text; constants cost nothing.
    pub fn eval_json(&self, scope: &Scope) -> Result<Json, EvalError> {
        match self.constant() {
            Some(constant) => Ok(constant.clone()),
            None => Ok(Json::of(&self.eval(scope)?)),
        }
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Template) -> bool {
        self.source == other.source
    }
}
impl Eq for Template {}

fn compile(source: &Value, at: &str, references: &mut References, errors: &mut Vec<TemplateError>) -> Node {
    match source {
        Value::String(text) => compile_text(text, references).unwrap_or_else(|error| {
            errors.push(TemplateError { pointer: at.to_owned(), error });
            Node::Constant(Value::Null)
        }),
        Value::Array(items) => {
            let nodes: Vec<Node> = (0_usize..)
                .zip(items)
                .map(|(place, item)| compile(item, &format!("{at}/{place}"), references, errors))
                .collect();
            if nodes.iter().all(is_constant) { Node::Constant(source.clone()) } else { Node::List(nodes) }
        }
        Value::Object(fields) => {
            let nodes: Vec<(String, Node)> = fields
                .iter()
                .map(|(name, field)| {
                    (name.clone(), compile(field, &pointer::join(at, name), references, errors))
                })
                .collect();
            let constant = nodes.iter().all(|(_, node)| is_constant(node));
            if constant { Node::Constant(source.clone()) } else { Node::Object(nodes) }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Node::Constant(source.clone()),
    }
}

fn is_constant(node: &Node) -> bool {
    matches!(node, Node::Constant(_))
}

fn collect<'a>(node: &'a Node, at: &str, found: &mut Vec<(String, &'a Expr)>) {
    match node {
        Node::Constant(_) => {}
        Node::Whole(expr) => found.push((at.to_owned(), expr)),
        Node::Text(parts) => found.extend(parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Hole(expr) => Some((at.to_owned(), expr)),
        })),
        Node::List(nodes) => {
            (0_usize..).zip(nodes).for_each(|(place, node)| collect(node, &format!("{at}/{place}"), found));
        }
        Node::Object(fields) => {
            fields.iter().for_each(|(name, node)| collect(node, &pointer::join(at, name), found));
        }
    }
}

fn compile_text(text: &str, references: &mut References) -> Result<Node, ExprError> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(open) = rest.find("${") {
        if open > 0 {
            parts.push(Part::Literal(rest[..open].to_owned()));
        }
        let inside = &rest[open + 2..];
        let close = closing(inside).ok_or_else(|| ExprError::Unclosed { text: shorten(text) })?;
        let expr = Expr::compile(inside[..close].trim())?;
        references.extend(expr.references());
        parts.push(Part::Hole(expr));
        rest = &inside[close + 1..];
    }
    if parts.is_empty() {
        return Ok(Node::Constant(Value::String(text.to_owned())));
    }
    if let ([Part::Hole(whole)], "") = (parts.as_slice(), rest) {
        return Ok(Node::Whole(whole.clone()));
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.to_owned()));
    }
    Ok(Node::Text(parts))
}

/// Where the brace closes that stands before `inside`; braces in CEL maps and strings are passed over.
fn closing(inside: &str) -> Option<usize> {
    let (mut depth, mut quote, mut escaped) = (0_u32, None, false);
    for (at, c) in inside.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '{') => depth += 1,
            (None, '}') if depth == 0 => return Some(at),
            (None, '}') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

fn eval(node: &Node, scope: &Scope) -> Result<Value, EvalError> {
    Ok(match node {
        Node::Constant(value) => value.clone(),
        Node::Whole(expr) => expr.eval(scope)?,
        Node::Text(parts) => Value::String(eval_text(parts, scope, &str::to_owned)?),
        Node::List(nodes) => {
            Value::Array(nodes.iter().map(|node| eval(node, scope)).collect::<Result<_, _>>()?)
        }
        Node::Object(fields) => {
            let mut object = Map::new();
            for (name, node) in fields {
                object.insert(name.clone(), eval(node, scope)?);
            }
            Value::Object(object)
        }
    })
}

fn eval_text(parts: &[Part], scope: &Scope, escape: &dyn Fn(&str) -> String) -> Result<String, EvalError> {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Literal(literal) => text.push_str(literal),
            Part::Hole(expr) => text.push_str(&escape(&text_of(expr.eval(scope)?))),
        }
    }
    Ok(text)
}

/// How a value stands in a text: strings bare, nothing for null, the rest as JSON.
fn text_of(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}
