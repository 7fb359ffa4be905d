//! The last transaction of dnf 4 and dnf5, from their histories.
//! dnf 4: /var/lib/dnf/history.sqlite (libdnf 0.66 to 0.74, libdnf/transaction/Transformer.cpp).
//! dnf5: /usr/lib/sysimage/libdnf5/transaction_history.sqlite (5.4, libdnf5/transaction/db/db.cpp).
//! An unfinished transaction has `dt_end` 0, not NULL. Its items are not marked individually, so
//! the history shows only that a transaction was not closed; what it left is in rpm's database.

use std::{collections::BTreeMap, ops::ControlFlow};

use super::{
    rpmdb::evr,
    sqlite::{Database, ReadAt, SqliteError, Table, Value},
};

/// Most packages of a transaction that are examined.
const MAX_ITEMS: usize = 16_384;
/// Most transactions of one boot that are examined.
const MAX_TRANSACTIONS: usize = 64;
/// Most characters kept of a command line.
const MAX_COMMAND: usize = 512;

/// A transaction of dnf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its number in the history.
    pub id: i64,
    /// When it began, in seconds since 1970.
    pub begin: i64,
    /// When it was closed, in seconds since 1970; `None` if it never was.
    pub end: Option<i64>,
    /// The command line, if the history has one.
    pub command: Option<String>,
    /// The number of the user who ran it; `None` if nobody was logged in.
    pub user: Option<i64>,
    /// The packages that it changed.
    pub items: Vec<Item>,
}

/// A package of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Name of the package.
    pub name: String,
    /// Architecture of the package, such as `x86_64`.
    pub arch: String,
    /// Epoch, version and release.
    pub evr: String,
    /// Whether it was to be installed; otherwise it was to be removed.
    pub comes: bool,
}

/// The program whose history it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// dnf 4, microdnf, yum 4: libdnf's schema.
    Dnf4,
    /// dnf5: the schema of libdnf5.
    Dnf5,
}

impl Dialect {
    /// The column of an item's action.
    const fn action(self) -> &'static str {
        match self {
            Self::Dnf4 => "action",
            Self::Dnf5 => "action_id",
        }
    }

    const fn command(self) -> &'static str {
        match self {
            Self::Dnf4 => "cmdline",
            Self::Dnf5 => "description",
        }
    }

    /// Whether an action installs a package or removes one; `None` if it does neither.
    /// libdnf/transaction/Types.hpp; libdnf5's table `trans_item_action`.
    const fn comes(self, action: i64) -> Option<bool> {
        match (self, action) {
            (Self::Dnf4, 1 | 2 | 4 | 6 | 9) | (Self::Dnf5, 1..=4) => Some(true),
            (Self::Dnf4, 3 | 5 | 7 | 8 | 10) | (Self::Dnf5, 5 | 6) => Some(false),
            _ => None,
        }
    }
}

/// The last transaction; `None` if there has been none. The packages of a closed one are not read.
///
/// # Errors
/// The database is damaged, or of another schema.
pub fn last<R: ReadAt>(
    database: &Database<R>,
    dialect: Dialect,
) -> Result<Option<Transaction>, SqliteError> {
    let mut last = None;
    transactions(database, dialect, &mut |transaction| {
        last = Some(transaction);
        ControlFlow::Break(())
    })?;
    let Some(mut last) = last else {
        return Ok(None);
    };
    if last.end.is_none() {
        last.items = items(database, dialect, last.id)?;
    }
    Ok(Some(last))
}

/// The transactions that began at or after a moment, the latest first, with the packages of those
/// that were never closed.
///
/// # Errors
/// The database is damaged, or of another schema.
pub fn since<R: ReadAt>(
    database: &Database<R>,
    dialect: Dialect,
    since: i64,
) -> Result<Vec<Transaction>, SqliteError> {
    let mut found = Vec::new();
    transactions(database, dialect, &mut |transaction| {
        if transaction.begin < since || found.len() == MAX_TRANSACTIONS {
            return ControlFlow::Break(());
        }
        found.push(transaction);
        ControlFlow::Continue(())
    })?;
    for transaction in found.iter_mut().filter(|one| one.end.is_none()) {
        transaction.items = items(database, dialect, transaction.id)?;
    }
    Ok(found)
}

fn transactions<R: ReadAt>(
    database: &Database<R>,
    dialect: Dialect,
    visit: &mut dyn FnMut(Transaction) -> ControlFlow<()>,
) -> Result<(), SqliteError> {
    let table = database.table("trans")?;
    let (begin, end) = (table.column("dt_begin")?, table.column("dt_end")?);
    let (command, user) = (table.column(dialect.command())?, table.column("user_id")?);
    database.rows_from_the_last(&table, &mut |id, row| {
        let number = |at: usize| row.get(at).and_then(Value::integer);
        let text = row.get(command).and_then(Value::text);
        visit(Transaction {
            id,
            begin: number(begin).unwrap_or(0),
            end: number(end).filter(|end| *end != 0),
            command: text
                .filter(|text| !text.is_empty())
                .map(|text| text.chars().take(MAX_COMMAND).collect()),
            // -1 if nobody was logged in.
            user: number(user).filter(|user| (0..i64::from(u32::MAX)).contains(user)),
            items: Vec::new(),
        })
    })
}

fn items<R: ReadAt>(
    database: &Database<R>,
    dialect: Dialect,
    transaction: i64,
) -> Result<Vec<Item>, SqliteError> {
    let table = database.table("trans_item")?;
    let (of, item, action) = (
        table.column("trans_id")?,
        table.column("item_id")?,
        table.column(dialect.action())?,
    );
    let mut found: BTreeMap<i64, bool> = BTreeMap::new();
    // The items of later transactions come after its own.
    database.rows_from_the_last(&table, &mut |_, row| {
        let number = |at: usize| row.get(at).and_then(Value::integer);
        let owner = number(of).unwrap_or(i64::MIN);
        if owner > transaction {
            return ControlFlow::Continue(());
        }
        if owner < transaction || found.len() == MAX_ITEMS {
            return ControlFlow::Break(());
        }
        let comes = number(action).and_then(|action| dialect.comes(action));
        if let (Some(item), Some(comes)) = (number(item), comes) {
            // A package that is reinstalled is removed and installed.
            *found.entry(item).or_default() |= comes;
        }
        ControlFlow::Continue(())
    })?;
    let table = database.table("rpm")?;
    let item = table.column("item_id")?;
    let (epoch, version, release) = (
        table.column("epoch")?,
        table.column("version")?,
        table.column("release")?,
    );
    let names = Names::read(database, dialect, &table)?;
    let mut items = Vec::new();
    database.rows(&table, &mut |_, row| {
        let number = |at: usize| row.get(at).and_then(Value::integer);
        let text = |at: usize| row.get(at).and_then(Value::text).unwrap_or_default();
        if let Some(comes) = number(item).and_then(|item| found.get(&item)) {
            let epoch = number(epoch).and_then(|epoch| u32::try_from(epoch).ok());
            items.push(Item {
                name: names.name(&row),
                arch: names.arch(&row),
                evr: evr(epoch.unwrap_or(0), &text(version), &text(release)),
                comes: *comes,
            });
        }
        ControlFlow::Continue(())
    })?;
    Ok(items)
}

/// Where the names and architectures of packages are: in the row with dnf 4, in separate tables
/// with dnf5.
struct Names {
    name: usize,
    arch: usize,
    tables: Option<(BTreeMap<i64, String>, BTreeMap<i64, String>)>,
}

impl Names {
    fn read<R: ReadAt>(
        database: &Database<R>,
        dialect: Dialect,
        rpm: &Table,
    ) -> Result<Self, SqliteError> {
        Ok(match dialect {
            Dialect::Dnf4 => Self {
                name: rpm.column("name")?,
                arch: rpm.column("arch")?,
                tables: None,
            },
            Dialect::Dnf5 => Self {
                name: rpm.column("name_id")?,
                arch: rpm.column("arch_id")?,
                tables: Some((named(database, "pkg_name")?, named(database, "arch")?)),
            },
        })
    }

    fn value(row: &[Value], at: usize, table: Option<&BTreeMap<i64, String>>) -> Option<String> {
        let value = row.get(at)?;
        match table {
            None => value.text(),
            Some(table) => table.get(&value.integer()?).cloned(),
        }
    }

    fn name(&self, row: &[Value]) -> String {
        let table = self.tables.as_ref().map(|(names, _)| names);
        Self::value(row, self.name, table).unwrap_or_default()
    }

    fn arch(&self, row: &[Value]) -> String {
        let table = self.tables.as_ref().map(|(_, archs)| archs);
        Self::value(row, self.arch, table).unwrap_or_default()
    }
}

/// Reads a table of numbers and names.
fn named<R: ReadAt>(
    database: &Database<R>,
    table: &str,
) -> Result<BTreeMap<i64, String>, SqliteError> {
    let table = database.table(table)?;
    let name = table.column("name")?;
    let mut names = BTreeMap::new();
    database.rows(&table, &mut |id, row| {
        if let Some(name) = row.get(name).and_then(Value::text) {
            names.insert(id, name);
        }
        ControlFlow::Continue(())
    })?;
    Ok(names)
}
