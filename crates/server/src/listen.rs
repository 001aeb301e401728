//! Sockets: TCP with and without TLS, Unix; HTTP/1.1 and HTTP/2 on each; so many connections and no more.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::config::{Address, ConfigError, Limits, TlsConfig};
use crate::metrics::Counted;
use crate::patience::Patience;

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Bytes of the head of a request.
const HEAD_BYTES: usize = 64 << 10;
/// Headers of a request.
const HEADERS: usize = 100;
/// After an error of `accept`, which most often is a lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// No connection for so long: there is none left to take before the socket closes.
const LAST: Duration = Duration::from_millis(20);
/// What a connection beyond the limit is told.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 69\r\nretry-after: 2\r\nconnection: close\r\n\r\n{\"error\":{\"code\":\"overloaded\",\"message\":\"too many open connections\"}}";

/// A socket that is listened on.
pub enum Socket {
    /// TCP, with TLS or without.
    Tcp(TcpListener, Option<TlsAcceptor>),
    /// Unix; the file goes when this is dropped.
    Unix(UnixListener, #[allow(dead_code, reason = "for its end")] SocketFile),
}

/// The file of a Unix socket.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already, or the system's to clean.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Socket {
    /// Listens on an address.
    ///
    /// # Errors
    /// Those of the system.
    pub async fn bind(address: &Address, tls: Option<&TlsAcceptor>) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address).await?, tls.cloned())),
            Address::Unix(path) => {
                remove_stale(path)?;
                Ok(Self::Unix(UnixListener::bind(path)?, SocketFile(path.clone())))
            }
        }
    }

    /// Where TCP is listened on, with the port that the system chose.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener, _) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }
}

/// Removes the socket that a server left which was killed; not one that another server listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is not a socket"));
        }
        Err(_) => return Ok(()),
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(_) => std::fs::remove_file(path),
    }
}

/// What TLS needs, if the configuration asks for it.
///
/// # Errors
/// The key of the configuration that is wrong.
pub fn tls(config: &TlsConfig) -> Result<Option<TlsAcceptor>, ConfigError> {
    if config.certificate.is_empty() {
        return Ok(None);
    }
    let wrong = |place: &str, path: &str, problem: &dyn std::fmt::Display| ConfigError {
        place: place.to_string(),
        problem: format!("{path}: {problem}"),
    };
    let certificate = |error: &dyn std::fmt::Display| wrong("tls.certificate", &config.certificate, error);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&config.certificate)
        .map_err(|error| certificate(&error))?
        .collect::<Result<_, _>>()
        .map_err(|error| certificate(&error))?;
    if chain.is_empty() {
        return Err(certificate(&"holds no certificate"));
    }
    let key =
        PrivateKeyDer::from_pem_file(&config.key).map_err(|error| wrong("tls.key", &config.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| certificate(&error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| wrong("tls.key", &config.key, &error))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(server))))
}

/// What all connections share.
#[derive(Clone)]
pub struct Connections {
    app: Arc<App>,
    http: auto::Builder<TokioExecutor>,
    open: Arc<Semaphore>,
    header_timeout: Duration,
    write_timeout: Duration,
}

impl Connections {
    /// Within these limits.
    #[must_use]
    pub fn new(app: Arc<App>, limits: &Limits) -> Self {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(HEAD_BYTES)
            .max_headers(HEADERS);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(HEAD_BYTES as u32)
            // A client that is gone without saying so is noticed, and one that is idle keeps nothing.
            .keep_alive_interval(Some(Duration::from_secs(20)))
            .keep_alive_timeout(Duration::from_secs(20))
            .max_pending_accept_reset_streams(Some(20));
        Self {
            app,
            http,
            open: Arc::new(Semaphore::new(limits.connections)),
            header_timeout: limits.header_timeout,
            write_timeout: limits.write_timeout,
        }
    }

    /// Takes connections until told to stop; those that are open go on, watched by `graceful`.
    pub async fn accept(self, socket: Socket, graceful: &GracefulShutdown, mut stop: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                accepted = self.next(&socket, graceful) => accepted,
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
        // Those that the system has accepted already would be reset.
        let last = tokio::time::Instant::now() + LAST;
        while let Ok(Ok(())) = tokio::time::timeout_at(last, self.next(&socket, graceful)).await {}
    }

    async fn next(&self, socket: &Socket, graceful: &GracefulShutdown) -> io::Result<()> {
        match socket {
            Socket::Tcp(listener, tls) => {
                let (stream, _) = listener.accept().await?;
                let _ = stream.set_nodelay(true); // only slower without
                match (tls, self.permit()) {
                    (None, Some(permit)) => self.serve(stream, permit, graceful.watcher()),
                    (None, None) => refuse(stream),
                    // Not worth a handshake.
                    (Some(_), None) => {}
                    (Some(tls), Some(permit)) => {
                        let (this, tls, watcher) = (self.clone(), tls.clone(), graceful.watcher());
                        tokio::spawn(async move {
                            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await
                            {
                                this.serve(stream, permit, watcher);
                            }
                        });
                    }
                }
            }
            Socket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                match self.permit() {
                    Some(permit) => self.serve(stream, permit, graceful.watcher()),
                    None => refuse(stream),
                }
            }
        }
        Ok(())
    }

    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.open).try_acquire_owned().ok()
    }

    fn serve<S>(&self, stream: S, permit: OwnedSemaphorePermit, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let app = Arc::clone(&self.app);
        let service = service_fn(move |request| {
            let app = Arc::clone(&app);
            async move { Ok::<_, std::convert::Infallible>(app.handle(request).await) }
        });
        let stream = TokioIo::new(Patience::new(stream, self.header_timeout, self.write_timeout));
        let connection = self.http.serve_connection(stream, service).into_owned();
        let connection = watcher.watch(connection);
        tokio::spawn(async move {
            let _counted = Counted::connection();
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended badly");
            }
            drop(permit);
        });
    }
}

/// Tells a connection beyond the limit that it is one.
fn refuse<S: AsyncWrite + Unpin + Send + 'static>(mut stream: S) {
    crate::metrics::rejected("connections");
    tokio::spawn(async move {
        let telling = async {
            stream.write_all(FULL).await?;
            stream.shutdown().await
        };
        // Whoever does not listen is not told.
        let _ = tokio::time::timeout(Duration::from_secs(1), telling).await;
    });
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_ready_made_answer_has_the_length_that_it_says() {
        let text = std::str::from_utf8(super::FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
