//! Stands in for tonic-prost-build, of which it has as much as the build scripts of this workspace call.
//!
//! Owns: reading `.proto` files with protox, so that nobody needs a protoc, and telling tonic-build about their
//! services. Never: formats code or generates any itself; prost-build and tonic-build do. It cannot hand over to the
//! package that it stands for: Cargo takes only one 0.14 of a name.
use std::io;
use std::path::Path;

use prost_types::FileDescriptorSet;
use tonic_build::CodeGenBuilder;
use tonic_build::manual::Method;

/// Where the generated modules look for messages: they are one level below them.
const MESSAGES: &str = "super";

/// What is to be generated.
#[derive(Clone, Copy, Debug)]
pub struct Builder {
    servers: bool,
}

/// Messages, clients and servers, unless told otherwise.
#[must_use]
pub fn configure() -> Builder {
    Builder { servers: true }
}

impl Builder {
    /// Whether code of servers is generated.
    #[must_use]
    pub fn build_server(self, enable: bool) -> Builder {
        Builder { servers: enable }
    }

    /// Reads files and generates code into `OUT_DIR`.
    pub fn compile_protos<P: AsRef<Path>>(self, protos: &[P], includes: &[P]) -> io::Result<()> {
        self.compile_fds(protox::compile(protos, includes).map_err(io::Error::other)?)
    }

    /// Generates code into `OUT_DIR`.
    pub fn compile_fds(self, files: FileDescriptorSet) -> io::Result<()> {
        prost_build::Config::new().service_generator(Box::new(self)).compile_fds(files)
    }
}

impl prost_build::ServiceGenerator for Builder {
    fn generate(&mut self, service: prost_build::Service, code: &mut String) {
        let methods = service.methods.iter().map(method).collect();
        let service = Service { service, methods };
        let mut generator = CodeGenBuilder::new();
        generator.emit_package(true);
        code.push_str(&generator.generate_client(&service, MESSAGES).to_string());
        if self.servers {
            code.push_str(&generator.generate_server(&service, MESSAGES).to_string());
        }
    }
}

fn method(method: &prost_build::Method) -> Method {
    let mut builder = Method::builder()
        .name(&method.name)
        .route_name(&method.proto_name)
        .input_type(message(&method.input_type))
        .output_type(message(&method.output_type))
        .codec_path("tonic_prost::ProstCodec");
    for line in &method.comments.leading {
        builder = builder.comment(line);
    }
    if method.client_streaming {
        builder = builder.client_streaming();
    }
    if method.server_streaming {
        builder = builder.server_streaming();
    }
    builder.build()
}

/// The type as the generated module names it. Types of other crates have a full path, and an empty message is `()`.
fn message(name: &str) -> String {
    if name == "()" || name.starts_with("::") { name.to_owned() } else { format!("{MESSAGES}::{name}") }
}

/// A service with its methods. The one that tonic-build brings has one name, where two are needed: etcd's `KV` on the
/// wire is `Kv` in Rust.
struct Service {
    service: prost_build::Service,
    methods: Vec<Method>,
}

impl tonic_build::Service for Service {
    type Comment = String;
    type Method = Method;

    fn name(&self) -> &str {
        &self.service.name
    }

    fn package(&self) -> &str {
        &self.service.package
    }

    fn identifier(&self) -> &str {
        &self.service.proto_name
    }

    fn methods(&self) -> &[Method] {
        &self.methods
    }

    fn comment(&self) -> &[String] {
        &self.service.comments.leading
    }
}
