//! The column names in the text of a `CREATE TABLE`.

/// The names of the columns of a `CREATE TABLE`, in order: each item's first word, but for
/// those of constraints on the table.
pub(super) fn columns(sql: &str) -> Vec<String> {
    let sql = without_comments(sql);
    let Some((_, body)) = sql.split_once('(') else {
        return Vec::new();
    };
    let mut columns = Vec::new();
    let mut depth = 0_usize;
    let mut item = String::new();
    for character in body.chars() {
        match character {
            '(' => depth += 1,
            ')' if depth == 0 => break,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                columns.extend(column(&item));
                item.clear();
                continue;
            }
            _ => {}
        }
        item.push(character);
    }
    columns.extend(column(&item));
    columns
}

fn column(item: &str) -> Option<String> {
    let word = item.split_whitespace().next()?;
    let word = word.trim_matches(['"', '\'', '`', '[', ']']).to_lowercase();
    let constraint = ["constraint", "primary", "unique", "check", "foreign"];
    let is_constraint = constraint.iter().any(|kind| {
        word == *kind
            || word
                .strip_prefix(kind)
                .is_some_and(|rest| rest.starts_with('('))
    });
    (!is_constraint).then_some(word)
}

fn without_comments(sql: &str) -> String {
    let mut rest = sql;
    let mut text = String::new();
    while let Some((before, after)) = rest.split_once("/*") {
        text.push_str(before);
        rest = after.split_once("*/").map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    let lines = text
        .lines()
        .map(|line| line.split_once("--").map_or(line, |(code, _)| code));
    lines.collect::<Vec<_>>().join("\n")
}
