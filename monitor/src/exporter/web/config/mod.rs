//! The web configuration: the settings in force, and reading them.

mod display;
pub(super) mod file;

#[cfg(test)]
mod tests;

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper::header::{HeaderName, HeaderValue};
use rustls::ServerConfig;

use self::file::File;
use super::{
    config_error::{Error, Problem},
    rate::Rate,
    tls::{self, From, Pem, Tls},
    users::Users,
};

/// Most bytes of a file: more than any configuration, certificate chain or list of authorities has.
const MOST_BYTES: u64 = 1024 * 1024;

/// The settings in force.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// How to serve TLS; `None` for plain HTTP.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// TLS keys are given, but none that enables TLS.
    pub(super) tls_idle: bool,
    /// Added to every response.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Users and their password hashes; if empty, no authentication is required.
    pub(super) users: Users,
    /// The limit on requests; `None` for no limit.
    pub(super) rate: Option<Rate>,
}

/// The result of reading the configuration.
pub(super) struct Loaded {
    /// All files it depends on, even if reading failed.
    pub(super) files: Vec<PathBuf>,
    pub(super) result: Result<Settings, Error>,
}

/// Reads a configuration file and the files that it names.
pub(super) fn load(path: &Path) -> Loaded {
    let mut files = vec![path.to_owned()];
    let result = settings(path, &mut files);
    Loaded { files, result }
}

fn settings(path: &Path, files: &mut Vec<PathBuf>) -> Result<Settings, Error> {
    let bytes = read(path).map_err(|problem| Error::whole(path, problem))?;
    let text = String::from_utf8(bytes).map_err(|_| Error::whole(path, Problem::NotText))?;
    let file = file::parse(path, &text)?;
    let tls = match &file.tls {
        None => None,
        Some(wanted) => {
            let named = [
                Some(&wanted.cert),
                Some(&wanted.key),
                wanted.client_ca.as_ref(),
            ];
            files.extend(named.into_iter().flatten().filter_map(Pem::path));
            Some(Arc::new(tls_config(path, wanted, &file)?))
        }
    };
    Ok(Settings {
        tls,
        tls_idle: file.tls_idle,
        headers: file.headers,
        users: file.users,
        rate: file.rate,
    })
}

fn tls_config(path: &Path, wanted: &Tls, file: &File) -> Result<ServerConfig, Error> {
    let cert = wanted.cert.read(path)?;
    let key = wanted.key.read(path)?;
    let client_ca = match &wanted.client_ca {
        Some(pem) => Some(pem.read(path)?),
        None => None,
    };
    tls::build(wanted, &cert, &key, client_ca.as_deref(), file.http2).map_err(|fault| {
        let pem = match fault.part {
            tls::Part::Certificate => Some(&wanted.cert),
            tls::Part::Key => Some(&wanted.key),
            tls::Part::Authorities => wanted.client_ca.as_ref(),
            tls::Part::Whole => None,
        };
        match pem {
            Some(pem) => pem.error(path, fault.problem),
            None => Error::whole(path, fault.problem),
        }
    })
}

impl Pem {
    fn path(&self) -> Option<PathBuf> {
        match &self.from {
            From::File(path) => Some(path.clone()),
            From::Inline(_) => None,
        }
    }

    fn read(&self, configuration: &Path) -> Result<Vec<u8>, Error> {
        match &self.from {
            From::File(path) => read(path).map_err(|problem| self.error(configuration, problem)),
            From::Inline(text) => Ok(text.as_bytes().to_vec()),
        }
    }

    fn error(&self, configuration: &Path, problem: Problem) -> Error {
        let problem = match &self.from {
            From::File(path) => Problem::File {
                path: path.clone(),
                problem: Box::new(problem),
            },
            From::Inline(_) => problem,
        };
        Error {
            path: configuration.to_owned(),
            place: self.place.clone(),
            problem,
        }
    }
}

/// The content of a regular file of at most [`MOST_BYTES`].
fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    // Checked before opening: opening a pipe would wait for its other end.
    let metadata = fs::metadata(path).map_err(Problem::Unreadable)?;
    if !metadata.is_file() {
        return Err(Problem::NotAFile);
    }
    let file = fs::File::open(path).map_err(Problem::Unreadable)?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(Problem::Unreadable)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Problem::TooLarge { limit: MOST_BYTES });
    }
    Ok(bytes)
}
