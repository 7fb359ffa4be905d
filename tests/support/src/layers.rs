//! The graph of a package's imports: which module uses items of which other.
//!
//! Nodes are the modules of the package without its tests. An edge goes from a module to the one
//! that *defines* an item that it names, by whatever path: a facade that re-exports an item (`pub
//! use`) does not count as a step. Names in macros count as well. Written here because tools that
//! draw such graphs (cargo-modules) need rust-analyzer, and answer no question that a test could
//! ask.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use petgraph::{algo::tarjan_scc, graphmap::DiGraphMap};
use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Item, ItemUse, Meta, UseTree, Visibility,
    visit::{self, Visit},
};

/// A package's sources cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayersError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file that could not be read.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// A file is not Rust.
    #[error("{}: {source}", path.display())]
    Syntax {
        /// The file that could not be parsed.
        path: PathBuf,
        /// Where and why it is not valid Rust.
        source: syn::Error,
    },
}

/// `["crash", "parser"]` is `crate::crash::parser`; the root is empty.
type Name = Vec<String>;

#[derive(Debug, Default)]
struct Module {
    children: BTreeSet<String>,
    /// What it re-exports: a name and the path that it refers to.
    passed_on: BTreeMap<String, Name>,
    /// Paths whose items it re-exports, all of them.
    passed_on_whole: Vec<Name>,
    /// Names that it imports, for itself or to re-export them.
    imported: BTreeMap<String, Name>,
    /// Paths that it names in any other way.
    named: BTreeSet<Name>,
}

/// Which module uses items of which other.
#[derive(Debug, Default)]
pub struct Imports {
    modules: BTreeMap<Name, Module>,
}

impl Imports {
    /// Reads the package whose root is this file.
    ///
    /// # Errors
    /// One of its files cannot be read.
    pub fn read(root: &Path) -> Result<Self, LayersError> {
        let mut imports = Self::default();
        let directory = root.parent().unwrap_or(Path::new("."));
        imports.file(root, directory, Name::new())?;
        Ok(imports)
    }

    fn file(&mut self, path: &Path, children: &Path, name: Name) -> Result<(), LayersError> {
        let text = fs::read_to_string(path).map_err(|source| LayersError::Io {
            path: path.to_owned(),
            source,
        })?;
        let file = syn::parse_file(&text).map_err(|source| LayersError::Syntax {
            path: path.to_owned(),
            source,
        })?;
        self.items(&file.items, children, name)
    }

    fn items(&mut self, items: &[Item], children: &Path, name: Name) -> Result<(), LayersError> {
        let mut module = Module::default();
        let mut below = Vec::new();
        for item in items.iter().filter(|item| !is_of_tests(item)) {
            match item {
                Item::Use(item) => module.import(item),
                Item::Mod(item) => {
                    module.children.insert(item.ident.to_string());
                    below.push(item);
                }
                item => Names(&mut module).visit_item(item),
            }
        }
        self.modules.insert(name.clone(), module);
        for item in below {
            let child = item.ident.to_string();
            let mut path = name.clone();
            path.push(child.clone());
            let directory = children.join(&child);
            if let Some((_, items)) = &item.content {
                self.items(items, &directory, path)?;
                continue;
            }
            let beside = children.join(format!("{child}.rs"));
            match beside.is_file() {
                true => self.file(&beside, &directory, path)?,
                false => self.file(&directory.join("mod.rs"), &directory, path)?,
            }
        }
        Ok(())
    }

    /// The module that defines what `path` names as seen from `module`; `None` for items of another
    /// package, and for modules themselves.
    fn owner(&self, module: &Name, path: &[String], depth: usize) -> Option<Name> {
        let mut at = module.clone();
        let mut rest = path;
        let first = rest.first()?;
        let known = self.modules.get(module)?;
        match first.as_str() {
            "crate" => {
                at.clear();
                rest = rest.get(1..)?;
            }
            "self" => rest = rest.get(1..)?,
            "super" => {
                while rest.first().is_some_and(|it| it == "super") {
                    at.pop()?;
                    rest = rest.get(1..)?;
                }
            }
            child if known.children.contains(child) => {}
            alias => {
                let stands_for = known.imported.get(alias).filter(|it| *it != path)?;
                let whole = [stands_for.as_slice(), rest.get(1..)?].concat();
                return (depth < 16).then(|| self.owner(module, &whole, depth + 1))?;
            }
        }
        while let Some((next, behind)) = rest.split_first() {
            let here = self.modules.get(&at)?;
            if here.children.contains(next) {
                at.push(next.clone());
                rest = behind;
                continue;
            }
            return self.defined(&at, rest, depth).or(Some(at));
        }
        None
    }

    /// The module from which a facade re-exports an item.
    fn defined(&self, facade: &Name, rest: &[String], depth: usize) -> Option<Name> {
        let here = self.modules.get(facade)?;
        let (name, behind) = rest.split_first()?;
        if depth >= 16 {
            return None;
        }
        if let Some(target) = here.passed_on.get(name) {
            let whole = [target.as_slice(), behind].concat();
            return self.owner(facade, &whole, depth + 1);
        }
        here.passed_on_whole.iter().find_map(|target| {
            let whole = [target.as_slice(), rest].concat();
            let owner = self.owner(facade, &whole, depth + 1)?;
            (owner != *facade).then_some(owner)
        })
    }

    /// The modules whose items a module names.
    fn used_by(&self, name: &Name) -> BTreeSet<Name> {
        let Some(module) = self.modules.get(name) else {
            return BTreeSet::new();
        };
        let paths = module.imported.values().chain(&module.named);
        let owners = paths.filter_map(|path| self.owner(name, path, 0));
        owners.filter(|owner| owner != name).collect()
    }

    /// All pairs of modules of which the first uses items of the second, as
    /// `crash::parser`.
    #[must_use]
    pub fn edges(&self) -> BTreeSet<(String, String)> {
        let pairs = |from: &Name| {
            let to = self.used_by(from).into_iter();
            let from = from.join("::");
            to.map(move |to| (from.clone(), to.join("::")))
                .collect::<Vec<_>>()
        };
        self.modules.keys().flat_map(pairs).collect()
    }

    /// The modules of one folder that use each other in a circle, with everything that is in them.
    /// A module and the files it is split into are one: an edge between a module and one inside it
    /// does not count.
    #[must_use]
    pub fn circles(&self) -> Vec<String> {
        let mut folders: BTreeMap<Name, BTreeMap<(Name, Name), Vec<String>>> = BTreeMap::new();
        for from in self.modules.keys() {
            for to in self.used_by(from) {
                let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                if let (Some(_), Some(_)) = (from.get(common), to.get(common)) {
                    let side = |name: &Name| name.iter().take(common + 1).cloned().collect();
                    let folder = from.iter().take(common).cloned().collect();
                    let edges: &mut BTreeMap<_, _> = folders.entry(folder).or_default();
                    let edge = format!("{} -> {}", from.join("::"), to.join("::"));
                    edges.entry((side(from), side(&to))).or_default().push(edge);
                }
            }
        }
        folders.values().flat_map(circles_of).collect()
    }

    /// Violations of the package's layers of top-level modules, the lowest first: an import from
    /// the same layer or from one above, a module that is in no layer, a layer with a module that
    /// does not exist.
    #[must_use]
    pub fn out_of_layer(&self, layers: &[&[&str]]) -> Vec<String> {
        let layer = |module: &str| layers.iter().position(|layer| layer.contains(&module));
        let root = self.modules.get(&Name::new());
        let top: BTreeSet<&str> = root
            .iter()
            .flat_map(|root| root.children.iter().map(String::as_str))
            .collect();
        let named: BTreeSet<&str> = layers.iter().copied().flatten().copied().collect();
        let nowhere = top.difference(&named);
        let mut wrong: Vec<String> = nowhere.map(|it| format!("{it} is in no layer")).collect();
        let missing = named.difference(&top);
        wrong.extend(missing.map(|it| format!("there is no module {it}")));
        for from in self.modules.keys() {
            for to in self.used_by(from) {
                let (Some(one), Some(other)) = (from.first(), to.first()) else {
                    continue;
                };
                if one != other && layer(one) <= layer(other) {
                    let (from, to) = (from.join("::"), to.join("::"));
                    wrong.push(format!("{from} -> {to} does not lead downwards"));
                }
            }
        }
        wrong
    }
}

fn circles_of(edges: &BTreeMap<(Name, Name), Vec<String>>) -> Vec<String> {
    let names: BTreeMap<(String, String), &Vec<String>> = edges
        .iter()
        .map(|((from, to), edges)| ((from.join("::"), to.join("::")), edges))
        .collect();
    let graph: DiGraphMap<&str, ()> = names
        .keys()
        .map(|(from, to)| (from.as_str(), to.as_str()))
        .collect();
    let circles = tarjan_scc(&graph).into_iter().filter(|it| it.len() > 1);
    let circles = circles.map(|circle| {
        let inside = |name: &String| circle.contains(&name.as_str());
        let edges = names
            .iter()
            .filter(|((from, to), _)| inside(from) && inside(to));
        let edges: Vec<&str> = edges
            .flat_map(|(_, edges)| edges.iter().map(String::as_str))
            .collect();
        edges.join(", ")
    });
    circles.collect()
}

impl Module {
    fn import(&mut self, item: &ItemUse) {
        let passed_on = !matches!(item.vis, Visibility::Inherited);
        self.tree(&item.tree, &mut Name::new(), passed_on);
    }

    fn tree(&mut self, tree: &UseTree, path: &mut Name, passed_on: bool) {
        match tree {
            UseTree::Path(inner) => {
                path.push(inner.ident.to_string());
                self.tree(&inner.tree, path, passed_on);
                path.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(tree, path, passed_on);
                }
            }
            UseTree::Name(name) if name.ident == "self" => {
                let alias = path.last().cloned().unwrap_or_default();
                self.enter(alias, path.clone(), passed_on);
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                let whole = [path.as_slice(), std::slice::from_ref(&name)].concat();
                self.enter(name, whole, passed_on);
            }
            UseTree::Rename(renamed) => {
                let name = renamed.ident.to_string();
                let whole = [path.as_slice(), &[name]].concat();
                self.enter(renamed.rename.to_string(), whole, passed_on);
            }
            UseTree::Glob(_) if passed_on => self.passed_on_whole.push(path.clone()),
            UseTree::Glob(_) => {
                let whole = [path.as_slice(), &["*".to_owned()]].concat();
                self.named.insert(whole);
            }
        }
    }

    fn enter(&mut self, alias: String, path: Name, passed_on: bool) {
        if passed_on {
            self.passed_on.insert(alias, path);
        } else {
            self.imported.insert(alias, path);
        }
    }

    fn tokens(&mut self, tokens: TokenStream) {
        let mut path = Name::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.name(&mut path);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.name(&mut path);
                    self.tokens(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => self.name(&mut path),
            }
        }
        self.name(&mut path);
    }

    fn name(&mut self, path: &mut Name) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.named.insert(path);
        }
    }
}

/// Collects the paths that an item names.
struct Names<'a>(&'a mut Module);

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter().map(|it| it.ident.to_string());
        self.0.name(&mut names.collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        visit::visit_macro(self, item);
        self.0.tokens(item.tokens.clone());
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.0.import(item);
    }
}

/// Whether it is compiled only for tests.
fn is_of_tests(item: &Item) -> bool {
    let attributes: &[Attribute] = match item {
        Item::Mod(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        _ => &[],
    };
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => names_test(list.tokens.clone()),
        _ => false,
    })
}

fn names_test(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == "test",
        TokenTree::Group(group) => names_test(group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

#[cfg(test)]
mod tests;
