//! The Query API's answer: XML, read into the few values that we want.
//!
//! The tree lives only as long as an operation reads it; elements that we do not know are skipped, because AWS adds some
//! every month, and one that must be there and is not becomes an error that names it.

use crate::{Error, Tags};
use roxmltree::{Document, Node, ParsingOptions};

/// Nodes in one reply: a page of a thousand instances has some 150,000.
const NODES_MAX: u32 = 400_000;
/// Elements inside each other; EC2 goes to about ten. The parser recurses, so this guards the stack.
const DEPTH_MAX: usize = 64;

/// Reads `text` as XML.
pub(crate) fn parse<'t>(action: &'static str, text: &'t str) -> Result<Document<'t>, Error> {
    if depth(text) > DEPTH_MAX {
        return Err(Error::Reply { action, wrong: format!("elements lie more than {DEPTH_MAX} deep") });
    }
    let options = ParsingOptions { nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).map_err(|error| Error::Reply { action, wrong: format!("it is not XML: {error}") })
}

/// How deep elements lie, roughly: one pass over the bytes that counts tags, which comments can only make more.
fn depth(text: &str) -> usize {
    let (mut deepest, mut now) = (0, 0_usize);
    let (mut opened, mut before) = (0, 0);
    for &byte in text.as_bytes() {
        match byte {
            b'>' if opened == b'/' => now = now.saturating_sub(1),
            b'>' if before != b'/' && !matches!(opened, 0 | b'!' | b'?') => now += 1,
            _ => {}
        }
        match byte {
            b'>' => opened = 0,
            _ if before == b'<' => opened = byte,
            _ => {}
        }
        before = byte;
        deepest = deepest.max(now);
    }
    deepest
}

/// What is read from an element, by the names of its children. Namespaces differ by service and version: not looked at.
#[derive(Clone, Copy)]
pub(crate) struct Element<'a, 't> {
    action: &'static str,
    node: Node<'a, 't>,
}

impl<'a, 't> Element<'a, 't> {
    pub(crate) fn root(action: &'static str, document: &'a Document<'t>) -> Element<'a, 't> {
        Element { action, node: document.root_element() }
    }

    fn named(self, name: &str) -> impl Iterator<Item = Node<'a, 't>> {
        self.node.children().filter(move |child| child.is_element() && child.tag_name().name() == name)
    }

    pub(crate) fn child(self, name: &str) -> Option<Element<'a, 't>> {
        let node = self.named(name).next()?;
        Some(Element { action: self.action, node })
    }

    /// The element at the end of a path of names.
    pub(crate) fn at(self, path: &[&str]) -> Option<Element<'a, 't>> {
        path.iter().try_fold(self, |element, name| element.child(name))
    }

    /// The element's own text without the space around it; `None` if there is none.
    pub(crate) fn own_text(self) -> Option<&'a str> {
        self.node.text().map(str::trim).filter(|text| !text.is_empty())
    }

    pub(crate) fn text(self, name: &str) -> Option<&'a str> {
        self.child(name)?.own_text()
    }

    pub(crate) fn string(self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    /// A text that must be there.
    pub(crate) fn need(self, name: &str) -> Result<String, Error> {
        let missing = || Error::Reply { action: self.action, wrong: format!("<{}> has no <{name}>", self.node.tag_name().name()) };
        self.string(name).ok_or_else(missing)
    }

    /// A value that may be missing, but if it is there it must be one.
    pub(crate) fn parsed<V: std::str::FromStr>(self, name: &str) -> Result<Option<V>, Error> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(Error::Reply { action: self.action, wrong: format!("<{name}> is `{text}`") }),
        }
    }

    pub(crate) fn is_true(self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    /// The members of a list: EC2 calls them `item`, IAM `member`.
    pub(crate) fn items(self, list: &str) -> impl Iterator<Item = Element<'a, 't>> {
        let action = self.action;
        let lists = self.named(list);
        lists.flat_map(|list| list.children()).filter(|node| node.is_element()).map(move |node| Element { action, node })
    }

    /// Every member of a list, read.
    pub(crate) fn each<V>(self, list: &str, read: impl Fn(Element<'a, 't>) -> Result<V, Error>) -> Result<Vec<V>, Error> {
        self.items(list).map(read).collect()
    }

    /// The texts of a list's members.
    pub(crate) fn texts(self, list: &str) -> Vec<String> {
        self.items(list).filter_map(Element::own_text).map(str::to_owned).collect()
    }

    pub(crate) fn tags(self) -> Tags {
        let tag = |tag: Element<'_, '_>| Some((tag.string("key")?, tag.string("value").unwrap_or_default()));
        self.items("tagSet").filter_map(tag).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_malformed_is_named() {
        let document = parse("DescribeInstances", "<Reply xmlns='urn:x'><port>many</port><items/></Reply>").expect("it is XML");
        let root = Element::root("DescribeInstances", &document);
        let missing = root.need("instanceId").expect_err("it is not there").to_string();
        assert!(missing.contains("<Reply> has no <instanceId>"), "{missing}");
        let malformed = root.parsed::<u16>("port").expect_err("it is no number").to_string();
        assert!(malformed.contains("<port> is `many`"), "{malformed}");
        assert_eq!(root.items("items").count(), 0);
    }

    #[test]
    fn a_reply_that_is_made_to_hurt_is_refused() {
        let deep = "<a>".repeat(100_000);
        let wide = format!("<a>{}</a>", "<b/>".repeat(NODES_MAX as usize + 1));
        let entities = "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>";
        for hostile in [deep.as_str(), wide.as_str(), entities, "", "no XML", "<a><b></a>"] {
            assert!(parse("DescribeInstances", hostile).is_err());
        }
    }
}
