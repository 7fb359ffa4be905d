//! The parts of a dashboard's JSON that the checks read.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::host::paths;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Board {
    /// The file name, with which messages begin.
    #[serde(skip)]
    pub(crate) file: String,
    #[serde(default)]
    pub(crate) uid: String,
    #[serde(default)]
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    #[serde(default)]
    pub(crate) schema_version: u32,
    /// Grafana treats a missing value as true.
    #[serde(default = "yes")]
    pub(crate) editable: bool,
    #[serde(default)]
    pub(crate) links: Vec<Value>,
    #[serde(default)]
    pub(crate) templating: Templating,
    #[serde(default)]
    pub(crate) panels: Vec<Panel>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Templating {
    #[serde(default)]
    pub(crate) list: Vec<Variable>,
}

/// A variable that the user of the dashboard chooses.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Variable {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) query: Value,
    #[serde(default)]
    pub(crate) datasource: Value,
    #[serde(default)]
    pub(crate) multi: bool,
    #[serde(default)]
    pub(crate) include_all: bool,
    #[serde(default)]
    pub(crate) all_value: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Panel {
    #[serde(default)]
    pub(crate) id: u32,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) description: String,
    pub(crate) grid_pos: GridPos,
    #[serde(default)]
    pub(crate) datasource: Value,
    #[serde(default)]
    pub(crate) targets: Vec<Target>,
    #[serde(default)]
    pub(crate) field_config: Value,
    #[serde(default)]
    pub(crate) transformations: Vec<Value>,
    /// For a row: the panels that it hides while collapsed.
    #[serde(default)]
    pub(crate) panels: Vec<Value>,
}

/// Position and size in columns (a dashboard has 24) and rows.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct GridPos {
    pub(crate) x: u32,
    pub(crate) y: u32,
    pub(crate) w: u32,
    pub(crate) h: u32,
}

impl GridPos {
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let apart = |start: u32, length: u32, other_start: u32, other_length: u32| {
            start.saturating_add(length) <= other_start
                || other_start.saturating_add(other_length) <= start
        };
        !apart(self.x, self.w, other.x, other.w) && !apart(self.y, self.h, other.y, other.h)
    }
}

/// A query of a panel.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Target {
    #[serde(default)]
    pub(crate) ref_id: String,
    #[serde(default)]
    pub(crate) expr: String,
    #[serde(default)]
    pub(crate) legend_format: String,
}

const fn yes() -> bool {
    true
}

impl Board {
    /// Parses a dashboard; `file` is its name in messages.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self> {
        let mut board: Self =
            serde_json::from_str(text).with_context(|| format!("{file}: not a dashboard"))?;
        board.file = file.to_owned();
        Ok(board)
    }

    /// The panels that show something: all except rows.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &Panel> {
        self.panels.iter().filter(|panel| !panel.is_row())
    }

    pub(crate) fn has_variable(&self, name: &str) -> bool {
        self.templating
            .list
            .iter()
            .any(|variable| variable.name == name)
    }
}

impl Panel {
    pub(crate) fn is_row(&self) -> bool {
        self.kind == "row"
    }
}

/// The dashboards' files, in order.
pub(crate) fn files() -> Result<Vec<PathBuf>> {
    let mut files = paths::listed(&paths::root()?.join("dashboards/grafana"))?;
    files.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    Ok(files)
}

/// Reads all shipped dashboards.
pub(crate) fn all() -> Result<Vec<Board>> {
    files()?
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            Board::parse(&name, &text)
        })
        .collect()
}
