//! The programs that the bench measures, and the settings that they start with.

use std::path::{Path, PathBuf};

use dsql_view_bench::workload::{SOURCE_TABLES, VIEW};
use dsql_view_support::dynamodb::{REGION, environment};

use crate::BoxError;

/// Where the programs are.
pub struct Programs {
    function: PathBuf,
    /// The folder of the release binaries.
    folder: PathBuf,
    /// The project's folder.
    project: PathBuf,
}

/// A function to start.
#[derive(Debug, Clone)]
pub struct Program {
    pub name: &'static str,
    pub binary: PathBuf,
    pub environment: Vec<(String, String)>,
}

impl Program {
    fn new(name: &'static str, binary: PathBuf, endpoint: &str) -> Self {
        let environment = environment(endpoint).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { name, binary, environment }.with("VIEW_TABLE", VIEW)
    }

    /// The same program with this variable.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }
}

impl Programs {
    /// The programs in this binary's folder, all of the release profile.
    pub fn find(function: Option<String>) -> Result<Self, BoxError> {
        let this = std::env::current_exe()?;
        let folder = this.parent().ok_or("the bench's binary has no folder")?.to_owned();
        let function = function.map_or_else(|| folder.join("dsql-view"), PathBuf::from);
        let programs = Self { function: std::path::absolute(function)?, folder, project: std::env::current_dir()? };
        is_built(&programs.function)?;
        Ok(programs)
    }

    /// An error where a peer in Rust is not built.
    pub fn peers_are_built(&self) -> Result<(), BoxError> {
        ["hello_world", "plain_handler"].iter().try_for_each(|peer| is_built(&self.beside(peer)))
    }

    /// A binary of the bench's own.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The function's binary.
    pub fn function_binary(&self) -> &Path {
        &self.function
    }

    /// A file of the project.
    pub fn of_project(&self, path: &str) -> PathBuf {
        self.project.join(path)
    }

    /// The function that the bench is about.
    pub fn function(&self, endpoint: &str) -> Program {
        Program::new("dsql-view", self.function.clone(), endpoint).with("SOURCE_TABLES", SOURCE_TABLES)
    }

    /// The function with a definitions file, and without `SOURCE_TABLES`. The view has its table's name there too.
    pub fn defined(&self, endpoint: &str, file: &Path) -> Program {
        Program::new("dsql-view", self.function.clone(), endpoint).with("VIEW_DEFINITIONS", file.to_string_lossy())
    }

    /// A function that does nothing.
    pub fn hello_world(&self) -> Program {
        Program::new("hello world", self.beside("hello_world"), "http://127.0.0.1:9")
    }

    /// The straightforward handler in Rust.
    pub fn plain(&self, endpoint: &str) -> Program {
        Program::new("Rust, one by one", self.beside("plain_handler"), endpoint)
    }

    /// The straightforward handler in Node.js, if it is installed.
    pub fn node(&self, endpoint: &str) -> Option<Program> {
        let modules = self.of_project(".tools/peers/node/node_modules");
        let bootstrap = self.of_project("benches/peers/node/bootstrap");
        let program = Program::new("Node.js, 50 sockets", bootstrap, endpoint);
        let modules = modules.exists().then(|| modules.to_string_lossy().into_owned())?;
        Some(program.with("PATH", std::env::var("PATH").ok()?).with("NODE_PATH", modules))
    }

    /// The straightforward handlers in Python, if they are installed: on 32 threads, one by one, and with Powertools.
    pub fn python(&self, endpoint: &str) -> Vec<Program> {
        let folder = self.of_project(".tools/peers/python/bin");
        if !folder.join("python3").exists() {
            return Vec::new();
        }
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
        let handlers = [
            ("Python, 32 threads", "threads"),
            ("Python, one by one", "sequential"),
            ("Python, Powertools", "powertools"),
        ];
        let program = |(name, module): (&'static str, &str)| {
            Program::new(name, self.of_project("benches/peers/python/bootstrap"), endpoint)
                .with("PATH", path.clone())
                .with("AWS_DEFAULT_REGION", REGION)
                .with("PYTHONDONTWRITEBYTECODE", "1")
                .with("_HANDLER", format!("{module}.handler"))
        };
        handlers.into_iter().map(program).collect()
    }

    /// The function, and all others that are installed.
    pub fn all(&self, endpoint: &str) -> Vec<Program> {
        let mut programs = vec![self.function(endpoint), self.plain(endpoint)];
        programs.extend(self.node(endpoint));
        programs.extend(self.python(endpoint));
        programs
    }
}

fn is_built(binary: &Path) -> Result<(), BoxError> {
    if binary.exists() {
        return Ok(());
    }
    Err(format!("there is no {}: it is built by `make bench`", binary.display()).into())
}
