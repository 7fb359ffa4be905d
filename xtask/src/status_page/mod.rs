//! Checks the status page in a real browser: on a phone and on a desktop, with the light and the
//! dark colours.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use self::browser::Browser;
use crate::host::{packages, paths, process};

mod browser;

const MEASURE: &str = include_str!("measure.js");

/// A page with every fault that the check must find.
const INVALID_PAGE: &str = include_str!("invalid.html");
const INVALID_PAGE_BY: &[&str] = &[
    "the title is",
    "the language is",
    "it has 1 scripts",
    "pixels wide on a screen",
    "extends beyond the right edge: div \"wide\"",
    "contrast below 4.5: p \"faint\" 2.8",
    "its sections are verdict",
    "its landmarks are main",
    "its headings are of levels [1, 3]",
    "links lead nowhere: nowhere",
    "its ground is",
    "it asks for",
    "spoken",
    "missing is not defined",
];

/// The sections of every page, in this order.
const SECTIONS: &[&str] = &[
    "verdict",
    "transition",
    "patches",
    "crash",
    "host",
    "evidence",
    "degraded",
    "monitor",
];

/// The greatest height of a screenshot, in pixels.
const TALLEST: u64 = 6000;

/// A screen on which the page is checked.
struct Screen {
    name: &'static str,
    width: u64,
    height: u64,
    mobile: bool,
}

const SCREENS: &[Screen] = &[
    Screen {
        name: "phone",
        width: 390,
        height: 844,
        mobile: true,
    },
    Screen {
        name: "desk",
        width: 1280,
        height: 900,
        mobile: false,
    },
];

const SCHEMES: &[&str] = &["light", "dark"];

/// What the script [`MEASURE`] returns for a page.
#[derive(Clone, Debug, Deserialize)]
struct Measured {
    title: String,
    language: String,
    quirks: bool,
    width: u64,
    height: u64,
    ground: String,
    styled: bool,
    scripts: u64,
    headings: Vec<u8>,
    landmarks: Vec<String>,
    sections: Vec<String>,
    dangling: Vec<String>,
    faint: Vec<String>,
    wide: Vec<String>,
}

/// Opens each page (name and file) in Chromium. It must be complete, fit the screen, be legible,
/// load nothing and log no error. Screenshots go to `target/page`.
pub(crate) fn check(pages: &[(&str, &Path)]) -> Result<()> {
    let findings = examine(pages)?;
    if findings.is_empty() {
        return Ok(());
    }
    bail!(
        "the status page in Chromium (screenshots in {}):\n  {}",
        folder()?.display(),
        findings.join("\n  ")
    )
}

/// The folder for screenshots.
fn folder() -> Result<PathBuf> {
    Ok(paths::target()?.join("page"))
}

/// All faults of the pages.
fn examine(pages: &[(&str, &Path)]) -> Result<Vec<String>> {
    packages::install(
        &["chromium", "fonts-dejavu-core"],
        "to look at the status page as a browser shows it",
    )?;
    let folder = folder()?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut browser = Browser::start(&folder)?;
    let mut findings = Vec::new();
    for (name, file) in pages {
        let file = fs::canonicalize(file)
            .with_context(|| format!("there is no page {}", file.display()))?;
        for screen in SCREENS {
            for scheme in SCHEMES {
                let shot = format!("{name}-{}-{scheme}", screen.name);
                let image = folder.join(&shot).with_extension("png");
                let found = look(&mut browser, &file, screen, scheme, &image)
                    .with_context(|| format!("the status page {shot}"))?;
                findings.extend(found.into_iter().map(|found| format!("{shot}: {found}")));
            }
        }
    }
    Ok(findings)
}

/// Checks the pages that the monitor's tests write, one for each state of a host.
pub(crate) fn check_samples() -> Result<()> {
    let folder = paths::target()?.join("tmp/page");
    let files = paths::listed(&folder)
        .context("`cargo test -p livepatch-monitor` leaves the pages there")?;
    let pages: Vec<(String, PathBuf)> = files
        .into_iter()
        .filter(|file| file.extension().is_some_and(|ending| ending == "html"))
        .filter_map(|file| Some((file.file_stem()?.to_str()?.to_owned(), file)))
        .collect();
    let pages: Vec<(&str, &Path)> = pages
        .iter()
        .map(|(name, file)| (name.as_str(), file.as_path()))
        .collect();
    let what = format!("{} states of the status page in Chromium", pages.len());
    process::step(&what, || {
        check(&pages)?;
        check_the_check()
    })
}

/// Checks that every fault of [`INVALID_PAGE`] is found.
fn check_the_check() -> Result<()> {
    let file = folder()?.join("invalid.html");
    fs::write(&file, INVALID_PAGE).with_context(|| format!("cannot write {}", file.display()))?;
    let found = examine(&[("invalid", &file)])?.join("\n  ");
    for fault in INVALID_PAGE_BY {
        if !found.contains(fault) {
            bail!(
                "{} has a fault ({fault}) that is not found:\n  {found}",
                file.display()
            );
        }
    }
    Ok(())
}

/// Opens the page once and returns its faults.
fn look(
    browser: &mut Browser,
    file: &Path,
    screen: &Screen,
    scheme: &str,
    image: &Path,
) -> Result<Vec<String>> {
    let metrics = json!({
        "width": screen.width, "height": screen.height,
        "deviceScaleFactor": 1, "mobile": screen.mobile,
    });
    browser.call("Emulation.setDeviceMetricsOverride", &metrics)?;
    let scheme_feature = json!({ "name": "prefers-color-scheme", "value": scheme });
    browser.call(
        "Emulation.setEmulatedMedia",
        &json!({ "features": [scheme_feature] }),
    )?;
    let url = format!("file://{}", file.display());
    browser.take_events();
    let opened = browser.call("Page.navigate", &json!({ "url": url }))?;
    if let Some(error) = opened["errorText"].as_str() {
        bail!("{url} cannot be opened: {error}");
    }
    browser.wait_for("Page.loadEventFired")?;
    let expression = json!({ "expression": MEASURE, "returnByValue": true });
    let answer = browser.call("Runtime.evaluate", &expression)?;
    let measured: Measured = serde_json::from_value(answer["result"]["value"].clone())
        .with_context(|| format!("measuring failed: {answer}"))?;
    let clip = json!({
        "x": 0, "y": 0, "width": screen.width, "scale": 1,
        "height": measured.height.clamp(screen.height, TALLEST),
    });
    let shot = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
    let answer = browser.call("Page.captureScreenshot", &shot)?;
    let data = answer["data"].as_str().context("no screenshot")?;
    let png = BASE64_STANDARD.decode(data).context("the screenshot")?;
    fs::write(image, png).with_context(|| format!("cannot write {}", image.display()))?;

    let mut found = faults(&measured, screen.width, scheme);
    found.extend(
        browser
            .take_events()
            .iter()
            .filter_map(|event| complaint(event, &url)),
    );
    Ok(found)
}

/// The faults of a page with these measurements.
fn faults(page: &Measured, width: u64, scheme: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut claim = |holds: bool, fault: String| {
        if !holds {
            faults.push(fault);
        }
    };
    let title = &page.title;
    claim(
        title.ends_with("livepatch-monitor") && title.contains(": "),
        format!("the title is {title:?}"),
    );
    claim(
        page.language == "en",
        format!("the language is {:?}", page.language),
    );
    claim(!page.quirks, "it has no doctype".to_owned());
    claim(page.styled, "its style is not applied".to_owned());
    claim(
        page.scripts == 0,
        format!("it has {} scripts", page.scripts),
    );
    claim(
        page.width <= width,
        format!("it is {} pixels wide on a screen of {width}", page.width),
    );
    claim(
        page.wide.is_empty(),
        format!("extends beyond the right edge: {}", page.wide.join(", ")),
    );
    claim(
        page.faint.is_empty(),
        format!("contrast below 4.5: {}", page.faint.join(", ")),
    );
    claim(
        page.sections == SECTIONS,
        format!("its sections are {}", page.sections.join(", ")),
    );
    claim(
        page.landmarks == ["header", "main", "footer", "nav"],
        format!("its landmarks are {}", page.landmarks.join(", ")),
    );
    let deeper_by_one = page.headings.windows(2).all(|pair| pair[1] <= pair[0] + 1);
    let one_first = page.headings.first() == Some(&1)
        && page.headings.iter().filter(|level| **level == 1).count() == 1;
    claim(
        deeper_by_one && one_first,
        format!("its headings are of levels {:?}", page.headings),
    );
    claim(
        page.dangling.is_empty(),
        format!("links lead nowhere: {}", page.dangling.join(", ")),
    );
    let white = page.ground == "rgb(255, 255, 255)";
    claim(
        white == (scheme == "light"),
        format!("its ground is {} in the {scheme}", page.ground),
    );
    faults
}

/// The fault that a browser event shows in the page at this address, if any.
fn complaint(event: &Value, url: &str) -> Option<String> {
    let parameters = &event["params"];
    match event["method"].as_str()? {
        "Log.entryAdded" => Some(format!("Chromium says: {}", parameters["entry"]["text"])),
        "Runtime.consoleAPICalled" => Some(format!("the console has {}", parameters["args"])),
        "Runtime.exceptionThrown" => Some(format!("an error: {}", parameters["exceptionDetails"])),
        "Network.requestWillBeSent" => {
            let asked = parameters["request"]["url"].as_str()?;
            let own = asked == url || asked.starts_with("data:");
            (!own).then(|| format!("it asks for {asked}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Measured {
        Measured {
            title: "Quiet: host – livepatch-monitor".into(),
            language: "en".into(),
            quirks: false,
            width: 390,
            height: 900,
            ground: "rgb(255, 255, 255)".into(),
            styled: true,
            scripts: 0,
            headings: vec![1, 2, 3, 2],
            landmarks: ["header", "main", "footer", "nav"]
                .map(str::to_owned)
                .into(),
            sections: SECTIONS.iter().map(|id| (*id).to_owned()).collect(),
            dangling: Vec::new(),
            faint: Vec::new(),
            wide: Vec::new(),
        }
    }

    #[test]
    fn a_good_page_has_no_fault() {
        assert_eq!(faults(&good(), 390, "light"), Vec::<String>::new());
    }

    type Corrupt = fn(&mut Measured);

    #[test]
    fn each_fault_is_named() {
        let cases: [(Corrupt, &str); 14] = [
            (|page| page.title = "404".into(), "the title is"),
            (|page| page.language.clear(), "the language is"),
            (|page| page.quirks = true, "no doctype"),
            (|page| page.styled = false, "style is not applied"),
            (|page| page.scripts = 1, "1 scripts"),
            (|page| page.width = 391, "391 pixels wide"),
            (|page| page.wide.push("pre".into()), "beyond the right edge"),
            (|page| page.faint.push("p 3.1".into()), "contrast"),
            (
                |page| page.sections.truncate(3),
                "sections are verdict, transition, patches",
            ),
            (|page| page.landmarks.clear(), "landmarks are"),
            (|page| page.headings = vec![1, 3], "levels [1, 3]"),
            (|page| page.headings = vec![2, 2], "levels [2, 2]"),
            (|page| page.dangling.push("x".into()), "nowhere: x"),
            (|page| page.ground = "rgb(0, 0, 0)".into(), "in the light"),
        ];
        for (corrupt, named) in cases {
            let mut page = good();
            corrupt(&mut page);
            let found = faults(&page, 390, "light");
            assert!(
                matches!(&*found, [one] if one.contains(named)),
                "{named}: {found:?}"
            );
        }
    }

    #[test]
    fn only_foreign_requests_are_complained_of() {
        let asks = |url: &str| json!({ "method": "Network.requestWillBeSent", "params": { "request": { "url": url } } });
        for own in ["file:///a.html", "data:,"] {
            assert_eq!(complaint(&asks(own), "file:///a.html"), None);
        }
        for foreign in ["file:///b.css", "https://example.net/"] {
            assert!(complaint(&asks(foreign), "file:///a.html").is_some());
        }
        let said =
            json!({ "method": "Log.entryAdded", "params": { "entry": { "text": "refused" } } });
        assert!(complaint(&said, "").is_some_and(|text| text.contains("refused")));
        assert_eq!(
            complaint(&json!({ "method": "Page.loadEventFired" }), ""),
            None
        );
    }
}
