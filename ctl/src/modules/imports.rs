//! Which modules a source text imports, found without running or wholly parsing it.
//!
//! Enough of JavaScript's lexical grammar is known (ECMA-262, section 12) to tell an `import` from the same word in a
//! comment, a string, a template or a regular expression. What it misses, a computed `import(name)`, the leader refuses
//! by name when it loads the script.

/// One import: its line, from 1, and the text between its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    pub line: usize,
    pub specifier: String,
}

/// Every `import … from "x"`, `import "x"`, `import("x")` and `export … from "x"`, in order.
pub fn imports(source: &str) -> Vec<Import> {
    let mut found = Vec::new();
    // Whether the tokens since `import` or `export` may still lead to a specifier.
    let mut state = State::Other;
    for (line, token) in Tokens::new(source) {
        state = match (state, token) {
            (State::Import | State::From, Token::Text(specifier)) => {
                found.push(Import { line, specifier });
                State::Other
            }
            // `import.meta` imports nothing; `import(` and `import {` do.
            (State::Import, Token::Sign('.')) => State::Other,
            (State::Import, Token::Sign('(')) => State::Import,
            (State::Import | State::Clause | State::From, Token::Word(word)) if word == "from" => State::From,
            (State::Import | State::Clause | State::From, Token::Word(_) | Token::Sign('{' | '}' | ',' | '*')) => State::Clause,
            // `thing.import` is a name of somebody's own.
            (State::Member, Token::Word(_)) => State::Other,
            (_, Token::Word(word)) if word == "import" => State::Import,
            (_, Token::Word(word)) if word == "export" => State::Export,
            // `export { a } from` and `export * from`; anything else declares something here.
            (State::Export, Token::Sign('{' | '*')) => State::Clause,
            (_, Token::Sign('.')) => State::Member,
            _ => State::Other,
        };
    }
    found
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Other,
    Member,
    Import,
    Export,
    Clause,
    From,
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// A string without its quotes, escapes as written.
    Text(String),
    /// A template or a regular expression, whole.
    Other,
    Sign(char),
}

struct Tokens<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
    /// What stands before a `/` tells a division from a regular expression.
    after_value: bool,
    /// Braces open inside each `${` of the templates that are open.
    templates: Vec<usize>,
}

impl<'a> Tokens<'a> {
    fn new(source: &'a str) -> Tokens<'a> {
        Tokens { rest: source.chars().peekable(), line: 1, after_value: false, templates: Vec::new() }
    }

    fn take(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        self.line += usize::from(next == '\n');
        Some(next)
    }

    fn word(&mut self, first: char) -> Token {
        let mut word = String::from(first);
        while let Some(c) = self.rest.next_if(|c| is_name(*c)) {
            word.push(c);
        }
        // After these a value begins; after any other word one has ended.
        const OPENERS: [&str; 12] = ["return", "typeof", "case", "in", "of", "new", "delete", "void", "throw", "await", "yield", "else"];
        self.after_value = !OPENERS.contains(&word.as_str());
        Token::Word(word)
    }

    /// Ends at the quote or, as it must, at the end of the line.
    fn text(&mut self, quote: char) -> Token {
        let mut text = String::new();
        while let Some(c) = self.take().filter(|c| *c != quote && *c != '\n') {
            text.push(c);
            if c == '\\' {
                text.extend(self.take());
            }
        }
        self.after_value = true;
        Token::Text(text)
    }

    /// Up to the closing backtick, or up to a `${`, whose tokens come next.
    fn template(&mut self) -> Token {
        while let Some(c) = self.take() {
            match c {
                '`' => {
                    self.after_value = true;
                    return Token::Other;
                }
                '\\' => drop(self.take()),
                '$' if self.rest.next_if_eq(&'{').is_some() => {
                    self.templates.push(0);
                    self.after_value = false;
                    return Token::Other;
                }
                _ => {}
            }
        }
        Token::Other
    }

    fn regular_expression(&mut self) -> Token {
        let mut in_class = false;
        while let Some(c) = self.take() {
            match c {
                '\\' => drop(self.take()),
                '[' => in_class = true,
                ']' => in_class = false,
                '/' if !in_class => break,
                '\n' => break,
                _ => {}
            }
        }
        while self.rest.next_if(|c| is_name(*c)).is_some() {}
        self.after_value = true;
        Token::Other
    }

    /// Whether a comment began here, and was passed.
    fn comment(&mut self) -> bool {
        if self.rest.next_if_eq(&'/').is_some() {
            while self.take().is_some_and(|c| c != '\n') {}
            return true;
        }
        if self.rest.next_if_eq(&'*').is_none() {
            return false;
        }
        let mut star = false;
        while let Some(c) = self.take() {
            if star && c == '/' {
                break;
            }
            star = c == '*';
        }
        true
    }

    fn sign(&mut self, sign: char) -> Token {
        match (sign, self.templates.last_mut()) {
            ('{', Some(open)) => *open += 1,
            ('}', Some(0)) => {
                self.templates.pop();
                return self.template();
            }
            ('}', Some(open)) => *open -= 1,
            _ => {}
        }
        self.after_value = matches!(sign, ')' | ']' | '}');
        Token::Sign(sign)
    }
}

impl Iterator for Tokens<'_> {
    type Item = (usize, Token);

    fn next(&mut self) -> Option<(usize, Token)> {
        loop {
            let c = self.take()?;
            let line = self.line;
            let token = match c {
                c if c.is_whitespace() => continue,
                '/' if self.comment() => continue,
                '/' if !self.after_value => self.regular_expression(),
                '"' | '\'' => self.text(c),
                '`' => self.template(),
                c if is_name(c) => self.word(c),
                c => self.sign(c),
            };
            return Some((line, token));
        }
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> Vec<(usize, String)> {
        imports(source).into_iter().map(|i| (i.line, i.specifier)).collect()
    }

    #[test]
    fn every_form_of_import_is_found_with_its_line() {
        let table = [
            ("import \"./a.js\"", vec![(1, "./a.js")]),
            ("\n\nimport a from './a.js';", vec![(3, "./a.js")]),
            ("import { a, b as c } from \"./a.js\"\nimport * as d from './b.js'", vec![(1, "./a.js"), (2, "./b.js")]),
            ("import {\n  a,\n} from './a.js';", vec![(3, "./a.js")]),
            ("import d, { from } from './a.js'", vec![(1, "./a.js")]),
            (
                "export { a } from './a.js'; export * from './b.js'; export * as c from './c.js'",
                vec![(1, "./a.js"), (1, "./b.js"), (1, "./c.js")],
            ),
            ("const m = await import('./a.js')", vec![(1, "./a.js")]),
            ("x/2; import './a.js'", vec![(1, "./a.js")]),
            ("f(`${a + `${b}`} import './no.js'`); import './a.js'", vec![(1, "./a.js")]),
            ("`${ {a: {}} }`; import './a.js'", vec![(1, "./a.js")]),
            ("s.replace(/[/'\"]/g, '')\nimport './a.js'", vec![(2, "./a.js")]),
        ];
        for (source, expected) in table {
            let expected: Vec<_> = expected.into_iter().map(|(line, s)| (line, s.to_owned())).collect();
            assert_eq!(found(source), expected, "{source}");
        }
    }

    #[test]
    fn what_only_looks_like_an_import_is_none() {
        let table = [
            "// import './a.js'",
            "/* import './a.js' */",
            "const text = \"import './a.js'\"",
            "const text = `import './a.js'`",
            "const import_ = './a.js'",
            "api.import('./a.js')",
            "import.meta.url + './a.js'",
            "const re = /import '.\\/a.js'/",
            "export const a = './a.js'",
            "export default './a.js'",
            "export function from() { return './a.js' }",
            "import(name)",
            "it's an unfinished string\n",
        ];
        for source in table {
            assert_eq!(found(source), [], "{source}");
        }
    }
}
