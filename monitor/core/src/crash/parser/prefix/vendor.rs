//! What vendors' kernels add after the timestamp: the CPU and the task that prints.

/// The text behind it: `[4:  kworker/0:1:  321] ` of Samsung's kernels, `(2)[321:comm]`
/// and `<4>-(2)[321:comm]` of MediaTek's, `c2    321 ` and `c2 321 (comm) ` of
/// Qualcomm's.
pub(super) fn behind(text: &str) -> Option<&str> {
    samsung(text)
        .or_else(|| mediatek(text))
        .or_else(|| qualcomm(text))
}

/// `TASK_COMM_LEN`
const MAX_COMM: usize = 16;

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn samsung(text: &str) -> Option<&str> {
    let (inner, behind) = text.strip_prefix('[')?.split_once("] ")?;
    let (cpu, rest) = inner.split_once(':')?;
    let (_, pid) = rest.rsplit_once(':')?;
    (is_number(cpu.trim()) && is_number(pid.trim())).then_some(behind)
}

fn mediatek(text: &str) -> Option<&str> {
    let text = match text.strip_prefix('<') {
        Some(rest) => rest.split_once(">-")?.1,
        None => text,
    };
    let (cpu, rest) = text.strip_prefix('(')?.split_once(")[")?;
    let (task, behind) = rest.split_once(']')?;
    let (pid, _) = task.split_once(':')?;
    (is_number(cpu) && is_number(pid)).then_some(behind)
}

fn qualcomm(text: &str) -> Option<&str> {
    let (cpu, rest) = text.strip_prefix('c')?.split_once(' ')?;
    let (pid, behind) = rest.trim_start().split_once(' ')?;
    let comm = behind
        .strip_prefix('(')
        .and_then(|rest| rest.split_once(") "));
    let behind = comm
        .filter(|(comm, _)| comm.len() < MAX_COMM)
        .map_or(behind, |(_, behind)| behind);
    (is_number(cpu) && is_number(pid)).then_some(behind)
}

#[cfg(test)]
mod tests {
    use super::behind;

    #[test]
    fn of_three_vendors() {
        for text in [
            "[4:  kworker/0:1:  321] BUG: x",
            "(2)[321:kworker/0:1]BUG: x",
            "<4>-(2)[321:a]BUG: x",
            "c2    321 BUG: x",
            "c2 321 (kworker/0:1) BUG: x",
        ] {
            assert_eq!(behind(text), Some("BUG: x"), "{text}");
        }
        for text in ["[Hardware Error]: x", "(null) x", "cpu 1 x", "c2 x"] {
            assert_eq!(behind(text), None, "{text}");
        }
    }
}
