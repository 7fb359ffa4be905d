//! The log, and how programs write its entries.

/// Seconds after boot, who printed it, at which level, and the text.
pub(super) struct Entry {
    micros: u64,
    level: u8,
    text: &'static str,
}

const fn entry(micros: u64, level: u8, text: &'static str) -> Entry {
    Entry {
        micros,
        level,
        text,
    }
}

pub(super) const LOG: [Entry; 14] = [
    entry(900_100_000, 6, "livepatch: enabling patch 'lpm_fix'"),
    entry(
        900_200_000,
        6,
        "livepatch: 'lpm_fix': starting patching transition",
    ),
    entry(902_300_000, 6, "livepatch: 'lpm_fix': patching complete"),
    entry(
        950_000_001,
        1,
        "BUG: kernel NULL pointer dereference, address: 0000000000000010",
    ),
    entry(950_000_002, 1, "#PF: supervisor read access in kernel mode"),
    entry(950_000_003, 4, "Oops: Oops: 0000 [#1] SMP NOPTI"),
    entry(
        950_000_004,
        4,
        "CPU: 1 UID: 0 PID: 321 Comm: lpm_worker Tainted: G           OE K     6.12.0-lpm #1",
    ),
    entry(950_000_005, 4, "RIP: 0010:lpm_read+0x26/0x140 [lpm_fix]"),
    entry(950_000_006, 4, "Call Trace:"),
    entry(950_000_007, 4, " <TASK>"),
    entry(950_000_008, 4, " vfs_read+0x3c/0x98"),
    entry(950_000_009, 4, " </TASK>"),
    entry(950_000_010, 4, "Modules linked in: lpm_fix(OEK) lpm_net(E)"),
    entry(
        950_100_000,
        0,
        "Kernel panic - not syncing: Fatal exception",
    ),
];

impl Entry {
    pub(in super::super) fn stamp(&self) -> String {
        let (seconds, micros) = (self.micros / 1_000_000, self.micros % 1_000_000);
        format!("[{seconds:5}.{micros:06}] {}", self.text)
    }

    /// The boot was at 12:00:00; nothing is later than 12:15:59.
    fn clock(&self) -> String {
        let seconds = self.micros / 1_000_000;
        format!("12:{:02}:{:02}", seconds / 60, seconds % 60)
    }

    fn iso(&self) -> String {
        format!("2026-11-23T{}.{:06}", self.clock(), self.micros % 1_000_000)
    }

    fn unix_micros(&self) -> u64 {
        1_795_435_200_000_000 + self.micros
    }
}

fn html(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('\'', "&#x27;")
}

fn json(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

pub(super) type Wrap = fn(&Entry) -> String;

/// How programs write an entry.
pub(super) const FORMATS: &[(&str, Wrap)] = &[
    ("dmesg", |e| e.stamp()),
    ("dmesg -T", |e| {
        format!("[Mon Nov 23 {} 2026] {}", e.clock(), e.text)
    }),
    ("dmesg --time-format iso", |e| {
        format!("{}+00:00 {}", e.iso().replace('.', ","), e.text)
    }),
    ("dmesg -x", |e| {
        format!("kern  :{:<6}: {}", "warn", e.stamp())
    }),
    ("dmesg -x -T", |e| {
        format!(
            "kern  :{:<6}: [Mon Nov 23 {} 2026] {}",
            "warn",
            e.clock(),
            e.text
        )
    }),
    ("dmesg -r", |e| format!("<{}>{}", e.level, e.stamp())),
    ("dmesg -d", |e| {
        let stamp = e.stamp();
        let (time, text) = stamp.split_once("] ").unwrap();
        format!("{time} <    0.000001>] {text}")
    }),
    ("dmesg --color", |e| {
        let stamp = e.stamp();
        let (time, text) = stamp.split_once("] ").unwrap();
        format!("\x1b[32m{time}] \x1b[0m\x1b[31m{text}\x1b[0m")
    }),
    ("journalctl -o short", |e| {
        format!("Nov 23 {} lpm-1 kernel: {}", e.clock(), e.text)
    }),
    ("journalctl -o short-precise", |e| {
        format!(
            "Nov 23 {}.{:06} lpm-1 kernel: {}",
            e.clock(),
            e.micros % 1_000_000,
            e.text
        )
    }),
    ("journalctl -o short-iso", |e| {
        format!("2026-11-23T{}+0000 lpm-1 kernel: {}", e.clock(), e.text)
    }),
    ("journalctl -o short-full", |e| {
        format!("Mon 2026-11-23 {} UTC lpm-1 kernel: {}", e.clock(), e.text)
    }),
    ("journalctl -o short-monotonic", |e| {
        e.stamp().replacen("] ", "] lpm-1 kernel: ", 1)
    }),
    ("journalctl -o short-unix", |e| {
        let micros = e.unix_micros();
        format!(
            "{}.{:06} lpm-1 kernel: {}",
            micros / 1_000_000,
            micros % 1_000_000,
            e.text
        )
    }),
    ("journalctl -o with-unit", |e| {
        format!(
            "Mon 2026-11-23 {} UTC lpm-1 kernel[n/a]: {}",
            e.clock(),
            e.text
        )
    }),
    ("journalctl -o cat", |e| e.text.to_owned()),
    ("journalctl -o json", |e| {
        format!(
            "{{\"_TRANSPORT\":\"kernel\",\"__REALTIME_TIMESTAMP\":\"{}\",\"_HOSTNAME\":\"lpm-1\",\
             \"_SOURCE_MONOTONIC_TIMESTAMP\":\"{}\",\"MESSAGE\":{}}}",
            e.unix_micros(),
            e.micros,
            json(e.text)
        )
    }),
    ("journalctl -o json, bytes", |e| {
        let bytes: Vec<_> = e.text.bytes().map(|byte| byte.to_string()).collect();
        format!(
            "{{\"_TRANSPORT\":\"kernel\",\"__REALTIME_TIMESTAMP\":\"{}\",\"MESSAGE\":[{}]}}",
            e.unix_micros(),
            bytes.join(",")
        )
    }),
    ("journalctl -o json-pretty", |e| {
        format!(
            "{{\n\t\"_TRANSPORT\" : \"kernel\",\n\t\"__REALTIME_TIMESTAMP\" : \"{}\",\n\t\"MESSAGE\" : {}\n}}",
            e.unix_micros(),
            json(e.text)
        )
    }),
    ("journalctl -o export", |e| {
        format!(
            "__CURSOR=s=1\n__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={}\n_TRANSPORT=kernel\n\
             _HOSTNAME=lpm-1\nMESSAGE={}\n",
            e.unix_micros(),
            e.micros,
            e.text
        )
    }),
    ("journalctl -o verbose", |e| {
        format!(
            "Mon 2026-11-23 {}.000000 UTC [s=1;i=2]\n    _TRANSPORT=kernel\n    MESSAGE={}",
            e.clock(),
            e.text
        )
    }),
    ("rsyslog, traditional", |e| {
        format!("Nov 23 {} lpm-1 kernel: {}", e.clock(), e.stamp())
    }),
    ("rsyslog", |e| {
        format!("{}+00:00 lpm-1 kernel: {}", e.iso(), e.stamp())
    }),
    ("rsyslog, no space", |e| {
        format!("Nov 23 {} lpm-1 kernel:{}", e.clock(), e.stamp())
    }),
    ("RFC 5424", |e| {
        format!(
            "<{}>1 {}Z lpm-1 kernel - - - {}",
            e.level,
            e.iso(),
            e.stamp()
        )
    }),
    ("RFC 3164", |e| {
        format!(
            "<{}>Nov 23 {} lpm-1 kernel: {}",
            e.level,
            e.clock(),
            e.stamp()
        )
    }),
    ("<N>", |e| format!("<{}>{}", e.level, e.text)),
    ("/dev/kmsg", |e| {
        format!(
            "{},7,{},-;{}\n SUBSYSTEM=lpm",
            e.level,
            e.micros,
            e.text.replace('\'', "\\x27")
        )
    }),
    ("netconsole", |e| e.stamp().trim_end().to_owned()),
    ("netconsole through a log server", |e| {
        format!("{}+00:00 lpm-1 {}", e.iso(), e.stamp())
    }),
    ("netconsole, extended, through a log server", |e| {
        format!(
            "{}+00:00 lpm-1 {},7,{},-;{}",
            e.iso(),
            e.level,
            e.micros,
            e.text
        )
    }),
    ("netconsole, in pieces", |e| {
        let (one, two) = e.text.split_at(5);
        let (level, micros, whole) = (e.level, e.micros, e.text.len());
        format!(
            "{level},{micros},{micros},-,ncfrag=0/{whole};{one}\n\
             {level},{micros},{micros},-,ncfrag=5/{whole};{two}"
        )
    }),
    ("conserver", |e| {
        format!("[Mon Nov 23 {} 2026]{}", e.clock(), e.stamp())
    }),
    ("ser2net", |e| {
        format!("[2026-11-23 {}] {}", e.clock(), e.stamp())
    }),
    ("minicom", |e| {
        format!("[2026-11-23 {}.123] {}", e.clock(), e.stamp())
    }),
    ("PuTTY", |e| format!("{} {}", e.clock(), e.stamp())),
    ("serial console with dates", |e| {
        format!("2026-11-23 {} {}", e.clock(), e.stamp())
    }),
    ("serial console with counters", |e| {
        format!("{:6}: {}", e.micros / 1000, e.stamp())
    }),
    ("ts", |e| format!("Nov 23 {} {}", e.clock(), e.stamp())),
    ("ts -s", |e| format!("{} {}", e.clock(), e.stamp())),
    ("logread", |e| {
        format!(
            "Mon Nov 23 {} 2026 kern.warn kernel: {}",
            e.clock(),
            e.stamp()
        )
    }),
    ("busybox syslogd", |e| {
        format!("Nov 23 {} lpm-1 user.warn kernel: {}", e.clock(), e.stamp())
    }),
    ("docker", |e| {
        format!(
            "{{\"log\":{},\"stream\":\"stdout\",\"time\":\"{}Z\"}}",
            json(&format!("{}\n", e.stamp())),
            e.iso()
        )
    }),
    ("containerd", |e| {
        format!("{}Z stdout F {}", e.iso(), e.stamp())
    }),
    ("GELF", |e| {
        format!(
            "{{\"version\":\"1.1\",\"host\":\"lpm-1\",\"short_message\":{},\"timestamp\":{}.5}}",
            json(&e.stamp()),
            e.unix_micros() / 1_000_000
        )
    }),
    ("Loki", |e| {
        format!(
            "{{\"labels\":{{\"job\":\"k\"}},\"line\":{},\"timestamp\":\"{}Z\"}}",
            json(&e.stamp()),
            e.iso()
        )
    }),
    ("LAVA", |e| {
        format!(
            "- {{\"dt\": \"{}\", \"lvl\": \"target\", \"msg\": {}}}",
            e.iso(),
            json(&e.stamp())
        )
    }),
    ("z/VM", |e| format!("00: {}", e.stamp())),
    ("a mail", |e| format!("> {}", e.stamp())),
    ("a mail's answer", |e| format!("> > {}", e.stamp())),
    ("a page", |e| html(&e.stamp())),
    ("a page with levels", |e| {
        html(&format!("<{}>{}", e.level, e.stamp()))
    }),
    ("hard spaces", |e| {
        e.stamp().replacen("[", "[\u{a0}", 1) + "  \u{a0}"
    }),
    ("a tab", |e| format!("\t{}", e.stamp())),
    ("CRLF", |e| e.stamp() + "\r"),
    ("PRINTK_CALLER", |e| {
        e.stamp().replacen("] ", "][  T321] ", 1)
    }),
    ("PRINTK_CALLER, a CPU", |e| {
        e.stamp().replacen("] ", "][    C1] ", 1)
    }),
    ("9 digits", |e| e.stamp().replacen("] ", "000] ", 1)),
    ("a form nobody knows", |e| {
        format!("{}|lpm-1|k0| {}", e.clock(), e.stamp())
    }),
];
