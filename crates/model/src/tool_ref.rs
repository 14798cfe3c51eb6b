//! `CONNECTION/TOOL`: how a specialist names what it may call.
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Name;

/// One tool of one connection of the namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ToolRef {
    /// The connection.
    pub connection: Name,
    /// The tool of its connector.
    pub tool: Arc<str>,
}

/// Why a text names no tool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no tool: write CONNECTION/TOOL, such as shop-north/set-price")]
pub struct NotAToolRef(String);

impl FromStr for ToolRef {
    type Err = NotAToolRef;

    fn from_str(text: &str) -> Result<ToolRef, NotAToolRef> {
        let wrong = || NotAToolRef(text.chars().take(120).collect());
        let (connection, tool) = text.split_once('/').ok_or_else(wrong)?;
        let connection = Name::new(connection).map_err(|_| wrong())?;
        if tool.is_empty() || tool.contains('/') {
            return Err(wrong());
        }
        Ok(ToolRef { connection, tool: Arc::from(tool) })
    }
}

impl fmt::Display for ToolRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.connection, self.tool)
    }
}
impl fmt::Debug for ToolRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl Serialize for ToolRef {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for ToolRef {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<ToolRef, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_named_by_its_connection_and_its_own_name() {
        let tool: ToolRef = "shop-north/set-price".parse().unwrap();
        assert_eq!((tool.connection.as_str(), &*tool.tool), ("shop-north", "set-price"));
        assert_eq!(tool.to_string(), "shop-north/set-price");
        assert_eq!(serde_json::to_string(&tool).unwrap(), r#""shop-north/set-price""#);
        for bad in ["", "shop", "/x", "shop/", "a/b/c", "Shop/x", "-a/x"] {
            assert!(bad.parse::<ToolRef>().is_err(), "{bad}");
            assert!(serde_json::from_value::<ToolRef>(bad.into()).is_err(), "{bad}");
        }
    }
}
