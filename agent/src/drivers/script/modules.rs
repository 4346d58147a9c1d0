//! Which modules a script may import: files of its own folder by relative name, and Disco's.
//!
//! A script is given to others and sent to the leader with the files it imports, so what it needs must be in its
//! folder: a path that leaves it, by `..` or by a link, is refused by name. Disco's classes can be imported as
//! `"disco"` or by the three names of the `@disco/` style; both give the same objects as the globals.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use boa_engine::{
    Context, JsError, JsNativeError, JsResult, JsString, Module, Source,
    module::{ModuleLoader, ModuleRequest, Referrer, SyntheticModuleInitializer},
    object::JsObject,
};

use super::frame::Modules;
use crate::model::limits::{SCRIPT_MODULES_MAX, SCRIPT_SOURCE_BYTES_MAX};

pub struct Loader {
    source: Modules,
    loaded: RefCell<BTreeMap<String, Module>>,
    bytes: Cell<usize>,
}

impl Loader {
    pub fn new(source: Modules) -> Loader {
        Loader { source, loaded: RefCell::default(), bytes: Cell::new(0) }
    }

    /// Makes `exports` (an object: name to value) importable as `name`.
    ///
    /// # Errors
    /// As the object's getters.
    pub fn register(&self, name: &str, exports: &JsObject, context: &mut Context) -> JsResult<()> {
        let keys = exports.own_property_keys(context)?;
        let names: Vec<JsString> = keys.iter().map(|key| JsString::from(key.to_string().as_str())).collect();
        let steps = SyntheticModuleInitializer::from_copy_closure_with_captures(
            |module, exports: &JsObject, context| {
                for key in exports.own_property_keys(context)? {
                    let value = exports.get(key.clone(), context)?;
                    module.set_export(&JsString::from(key.to_string().as_str()), value)?;
                }
                Ok(())
            },
            exports.clone(),
        );
        let module = Module::synthetic(&names, steps, None, None, context);
        self.loaded.borrow_mut().insert(name.to_owned(), module);
        Ok(())
    }

    /// The module of this normalised name (`client.js`, `lib/web.js`), parsed once.
    ///
    /// # Errors
    /// A `TypeError` that names the file and why it can't be read; a `SyntaxError` with file, line and column.
    pub fn load(&self, name: &str, context: &mut Context) -> JsResult<Module> {
        if let Some(module) = self.loaded.borrow().get(name) {
            return Ok(module.clone());
        }
        let text = self.read(name).map_err(|why| JsNativeError::typ().with_message(why))?;
        let parsed = Module::parse(Source::from_bytes(&text).with_path(Path::new(name)), None, context);
        let module = parsed.map_err(|e| JsNativeError::syntax().with_message(locate(name, &text, &parser_message(&e))))?;
        self.loaded.borrow_mut().insert(name.to_owned(), module.clone());
        Ok(module)
    }

    /// Line and column (from 1) where `word` is first written in module `name`, from this place on.
    pub fn find(&self, name: &str, word: &str, from: (usize, usize)) -> Option<(usize, usize)> {
        let text = self.text(name).ok()?;
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$' || c == '.';
        for (number, line) in (1..).zip(text.lines()).skip_while(|(number, _)| *number < from.0) {
            for (at, _) in line.match_indices(word) {
                let column = line[..at].chars().count() + 1;
                let whole = !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(|c| c != '.' && is_part(c));
                if whole && (number, column) >= from {
                    return Some((number, column));
                }
            }
        }
        None
    }

    fn text(&self, name: &str) -> Result<String, String> {
        match &self.source {
            Modules::Memory(texts) => texts.get(name).cloned().ok_or_else(|| format!("there is no module {name}")),
            Modules::Folder(folder) => read_file(folder, name),
        }
    }

    fn read(&self, name: &str) -> Result<String, String> {
        let own = self.loaded.borrow().keys().filter(|name| !is_built_in(name)).count();
        if own >= SCRIPT_MODULES_MAX {
            return Err(format!("cannot load {name}: a script has at most {SCRIPT_MODULES_MAX} modules"));
        }
        let text = self.text(name)?;
        self.bytes.set(self.bytes.get() + text.len());
        if self.bytes.get() > SCRIPT_SOURCE_BYTES_MAX {
            return Err(format!("cannot load {name}: a script's modules are at most {} KiB together", SCRIPT_SOURCE_BYTES_MAX / 1024));
        }
        Ok(text)
    }
}

impl ModuleLoader for Loader {
    async fn load_imported_module(
        self: Rc<Self>,
        referrer: Referrer,
        request: ModuleRequest,
        context: &RefCell<&mut Context>,
    ) -> JsResult<Module> {
        let specifier = request.specifier().to_std_string_lossy();
        let name = resolve(&specifier, referrer.path()).map_err(|why| JsNativeError::typ().with_message(why))?;
        self.load(&name, &mut context.borrow_mut())
    }
}

/// Whether it is a module of Disco's own, in no folder.
pub fn is_built_in(specifier: &str) -> bool {
    matches!(specifier, "disco" | "@disco/provider" | "@disco/storage" | "@disco/cluster")
}

/// The name of the module that `specifier` means in the module `from`.
///
/// # Errors
/// A sentence: it is no relative name, or leaves the folder.
pub fn resolve(specifier: &str, from: Option<&Path>) -> Result<String, String> {
    if is_built_in(specifier) {
        return Ok(specifier.to_owned());
    }
    let importer = from.map_or("<eval>".into(), |p| p.display().to_string());
    if !(specifier.starts_with("./") || specifier.starts_with("../")) {
        return Err(format!(
            "{importer} cannot import \"{specifier}\": a module is \"disco\", \"@disco/provider\", \"@disco/storage\", \"@disco/cluster\" or a file by its relative name (\"./{specifier}\")"
        ));
    }
    let leaves = || format!("{importer} cannot import \"{specifier}\": it is outside the script's folder");
    let mut name = from.and_then(Path::parent).map(Path::to_path_buf).unwrap_or_default();
    for part in Path::new(specifier).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !name.pop() {
                    return Err(leaves());
                }
            }
            Component::Normal(part) => name.push(part),
            Component::RootDir | Component::Prefix(_) => return Err(leaves()),
        }
    }
    name.into_os_string().into_string().map_err(|_| leaves())
}

/// The text of the module `name` of a folder; at most a byte more than a script's modules may have together.
///
/// # Errors
/// A sentence: it is no readable UTF-8 file, or a link that leaves the folder.
pub fn read_file(folder: &Path, name: &str) -> Result<String, String> {
    let cannot = |e: io::Error| format!("cannot read {name}: {}", reason(&e));
    // Links are resolved first, so that what is checked is what is read.
    let root: PathBuf = folder.canonicalize().map_err(cannot)?;
    let path = root.join(name).canonicalize().map_err(cannot)?;
    if !path.starts_with(&root) {
        return Err(format!("cannot read {name}: it is a link that leaves the script's folder"));
    }
    // A FIFO or a device would make us wait, or never end.
    if !fs::metadata(&path).map_err(cannot)?.is_file() {
        return Err(format!("cannot read {name}: it is not a file"));
    }
    let mut text = String::new();
    // One byte more than allowed, so that the caller's sum sees "too many".
    fs::File::open(&path).and_then(|file| file.take(SCRIPT_SOURCE_BYTES_MAX as u64 + 1).read_to_string(&mut text)).map_err(cannot)?;
    Ok(text)
}

fn reason(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => e.to_string(),
    }
}

fn parser_message(e: &JsError) -> String {
    e.as_native().map_or_else(|| e.to_string(), |native| native.message().to_owned())
}

/// Boa ends a syntax error with ` at line L, col C`; people look for `file:L:C` first.
fn locate(name: &str, text: &str, error: &str) -> String {
    let error = error.trim();
    let place = error.rfind(" at line ").and_then(|at| {
        let (line, column) = error[at + " at line ".len()..].split_once(", col ")?;
        let column: String = column.chars().take_while(char::is_ascii_digit).collect();
        line.parse::<u32>().ok()?;
        Some((&error[..at], format!("{line}:{column}")))
    });
    match place {
        Some((what, place)) => format!("{name}:{place}: {}", what.trim_end_matches([',', ' '])),
        // "abrupt end": the text stopped too early.
        None => format!("{name}:{}: {error}", text.lines().count().max(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specifier_names_a_module_inside_the_folder_or_nothing() {
        let table = [
            ("disco", "client.js", Ok("disco")),
            ("@disco/cluster", "lib/a.js", Ok("@disco/cluster")),
            ("./a.js", "client.js", Ok("a.js")),
            ("./lib/a.js", "client.js", Ok("lib/a.js")),
            ("../b.js", "lib/a.js", Ok("b.js")),
            ("./../lib/./c.js", "lib/a.js", Ok("lib/c.js")),
            ("../b.js", "client.js", Err("outside the script's folder")),
            ("./lib/../../b.js", "client.js", Err("outside the script's folder")),
            ("/etc/passwd", "client.js", Err("by its relative name")),
            ("lodash", "client.js", Err("client.js cannot import \"lodash\"")),
            ("@disco/other", "client.js", Err("cannot import")),
        ];
        for (specifier, from, expected) in table {
            match (resolve(specifier, Some(Path::new(from))), expected) {
                (Ok(name), Ok(expected)) => assert_eq!(name, expected),
                (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
                (got, expected) => panic!("{specifier} from {from}: {got:?}, not {expected:?}"),
            }
        }
    }
}
