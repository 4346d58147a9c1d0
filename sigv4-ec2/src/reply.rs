//! The Query API's answer: XML, read into the few values that we want.
//!
//! The tree lives only as long as an operation reads it; elements that we do not know are skipped, because AWS adds some
//! every month, and one that must be there and is not becomes an error that names it.

use crate::{Error, Tags};
use roxmltree::{Document, Node, ParsingOptions};

/// Nodes in one reply: a page of a thousand instances has some 150,000.
const NODES_MAX: u32 = 400_000;

/// Reads `text` as XML.
pub(crate) fn parse<'t>(action: &'static str, text: &'t str) -> Result<Document<'t>, Error> {
    let options = ParsingOptions { nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).map_err(|error| Error::reply(action, format!("it is not XML: {error}")))
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
        self.string(name).ok_or_else(|| self.missing(name))
    }

    /// A value that may be missing, but if it is there it must be one.
    pub(crate) fn parsed<V: std::str::FromStr>(self, name: &str) -> Result<Option<V>, Error> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(Error::reply(self.action, format!("<{name}> is `{text}`"))),
        }
    }

    /// A value that must be there.
    pub(crate) fn need_parsed<V: std::str::FromStr>(self, name: &str) -> Result<V, Error> {
        self.parsed(name)?.ok_or_else(|| self.missing(name))
    }

    fn missing(self, name: &str) -> Error {
        Error::reply(self.action, format!("<{}> has no <{name}>", self.node.tag_name().name()))
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
        assert!(root.need_parsed::<u16>("gone").is_err_and(|error| error.to_string().contains("<Reply> has no <gone>")));
        assert_eq!(root.items("items").count(), 0);
    }

    #[test]
    fn a_reply_that_is_made_to_hurt_is_refused() {
        let wide = format!("<a>{}</a>", "<b/>".repeat(NODES_MAX as usize + 1));
        let entities = "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>";
        for hostile in [wide.as_str(), entities, "", "no XML", "<a><b></a>"] {
            assert!(parse("DescribeInstances", hostile).is_err());
        }
    }

    /// A parser that called itself for each level would end the process: a test's stack has 2 MiB.
    #[test]
    fn elements_may_lie_in_each_other_as_deep_as_they_are_many() {
        let levels = 100_000;
        let deep = format!("{}{}", "<a>".repeat(levels), "</a>".repeat(levels));
        let document = parse("DescribeInstances", &deep).expect("it is XML");
        assert_eq!(document.descendants().filter(Node::is_element).count(), levels);
    }

    #[test]
    fn an_error_repeats_only_the_beginning_of_what_is_wrong() {
        let long = "many".repeat(1 << 20);
        let document = format!("<{long}><port>{long}</port></{long}>");
        let document = parse("DescribeInstances", &document).expect("it is XML");
        let root = Element::root("DescribeInstances", &document);
        for error in [root.parsed::<u16>("port").expect_err("it is no number"), root.need("instanceId").expect_err("it is not there")] {
            assert!(matches!(&error, Error::Reply { wrong, .. } if wrong.len() == 2048), "{} bytes", error.to_string().len());
        }
    }
}
