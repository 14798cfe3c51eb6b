//! What an expression looks at.
//!
//! Owns: the walk over CEL's syntax tree. Never: evaluates.
use std::collections::BTreeSet;

use cel::common::ast::{EntryExpr, Expr, operators};
use cel::parser::Expression;

/// The free variables of an expression, and the steps named by `steps.NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Root names, such as `event` or `steps`.
    pub variables: BTreeSet<String>,
    /// Names after `steps.`.
    pub steps: BTreeSet<String>,
    /// `steps` stands alone, so that nobody can tell which steps are meant.
    pub steps_as_a_whole: bool,
}

impl References {
    /// Adds what `other` looks at.
    pub fn extend(&mut self, other: &References) {
        self.variables.extend(other.variables.iter().cloned());
        self.steps.extend(other.steps.iter().cloned());
        self.steps_as_a_whole |= other.steps_as_a_whole;
    }
}

/// What bounds how long an expression takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// Deepest nesting of `map`, `filter`, `all`, `exists`.
    pub(super) macro_depth: u32,
    /// Length of the longest list or map that is written out.
    longest: u64,
    /// Most `+` in what one macro goes through: each may put two lists together.
    sums: u64,
}

impl Shape {
    /// At most so many iterations, where the longest visible list is so long.
    pub(super) fn iterations(&self, list_len_max: u64) -> u64 {
        let longest = list_len_max.max(self.longest).max(1);
        longest.saturating_mul(1 + self.sums).saturating_pow(self.macro_depth)
    }
}

/// What the expression looks at, and its shape.
pub(super) fn of(expression: &Expression) -> (References, Shape) {
    let mut walk = Walk::default();
    walk.visit(&expression.expr);
    (walk.found, walk.shape)
}

#[derive(Default)]
struct Walk {
    found: References,
    /// Variables that an enclosing macro binds.
    bound: Vec<String>,
    depth: u32,
    /// `+` seen so far.
    sums: u64,
    shape: Shape,
}

impl Walk {
    fn visit(&mut self, expr: &Expr) {
        match expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => {
                if let Expr::Ident(root) = &select.operand.expr
                    && root == "steps"
                    && !self.is_bound(root)
                {
                    self.found.variables.insert(root.clone());
                    self.found.steps.insert(select.field.clone());
                } else {
                    self.visit(&select.operand.expr);
                }
            }
            Expr::Call(call) => {
                self.sums += u64::from(call.func_name == operators::ADD);
                if let Some(target) = &call.target {
                    self.visit(&target.expr);
                }
                call.args.iter().for_each(|arg| self.visit(&arg.expr));
            }
            Expr::List(list) => {
                self.shape.longest = self.shape.longest.max(list.elements.len() as u64);
                list.elements.iter().for_each(|element| self.visit(&element.expr));
            }
            Expr::Map(map) => {
                self.shape.longest = self.shape.longest.max(map.entries.len() as u64);
                map.entries.iter().for_each(|entry| self.entry(&entry.expr));
            }
            Expr::Struct(of) => of.entries.iter().for_each(|entry| self.entry(&entry.expr)),
            Expr::Comprehension(comprehension) => {
                let sums = self.sums;
                self.visit(&comprehension.iter_range.expr);
                self.shape.sums = self.shape.sums.max(self.sums - sums);
                self.visit(&comprehension.accu_init.expr);
                let before = self.bound.len();
                self.bound.push(comprehension.iter_var.clone());
                self.bound.extend(comprehension.iter_var2.clone());
                self.bound.push(comprehension.accu_var.clone());
                self.depth += 1;
                self.shape.macro_depth = self.shape.macro_depth.max(self.depth);
                let sums = self.sums;
                self.visit(&comprehension.loop_cond.expr);
                self.visit(&comprehension.loop_step.expr);
                // What a macro sums each time around is mostly numbers, and its own sums add one item each.
                self.sums = sums;
                self.depth -= 1;
                self.visit(&comprehension.result.expr);
                self.bound.truncate(before);
            }
        }
    }

    fn entry(&mut self, entry: &EntryExpr) {
        match entry {
            EntryExpr::StructField(field) => self.visit(&field.value.expr),
            EntryExpr::MapEntry(pair) => {
                self.visit(&pair.key.expr);
                self.visit(&pair.value.expr);
            }
        }
    }

    fn name(&mut self, name: &str) {
        if name.starts_with('@') || self.is_bound(name) {
            return;
        }
        self.found.variables.insert(name.to_owned());
        self.found.steps_as_a_whole |= name == "steps";
    }

    fn is_bound(&self, name: &str) -> bool {
        self.bound.iter().any(|bound| bound == name)
    }
}
