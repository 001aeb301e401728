use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::client::{get, request, send_over};
use crate::running::{body, start};

async fn over_http2<S>(stream: S) -> http::Response<Bytes>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post("http://localhost/jointly/v1/rerank");
    let request = request.body(Full::new(Bytes::from(body("red", 3).to_string()))).unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    http::Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_like_tcp_and_goes_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jointly.sock");
    // What a killed server left.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listen = vec!["127.0.0.1:0".to_string(), format!("unix:{}", path.display())];
    let mut running = start(|config| config.listen = listen).await;
    let stream = UnixStream::connect(&path).await.unwrap();
    let asked = request("POST", "/jointly/v1/rerank", &[], body("red", 3).to_string());
    assert_eq!(send_over(stream, asked).await.status, 200);
    running.handle.stop();
    assert_eq!((&mut running.task).await.unwrap(), Ok(()));
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_spoken_without_being_asked_first() {
    let running = start(|_| {}).await;
    let answer = over_http2(TcpStream::connect(running.address).await.unwrap()).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_carries_both_versions() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/tls");
    let file = |name: &str| folder.join(name).display().to_string();
    let running = start_tls(file("certificate.pem"), file("key.pem")).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("certificate.pem")).unwrap()).unwrap();
    for protocol in [&b"h2"[..], b"http/1.1"] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        client.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(running.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        if protocol == b"h2" {
            assert_eq!(over_http2(stream).await.status(), 200);
        } else {
            assert_eq!(send_over(stream, request("GET", "/livez", &[], "")).await.status, 200);
        }
    }
}

/// Readiness is asked of the handle: plain requests are not understood.
async fn start_tls(certificate: String, key: String) -> crate::running::Running {
    let config = crate::running::config(|config| {
        config.tls.certificate = certificate;
        config.tls.key = key;
    });
    let running = crate::running::begin(config, Arc::default()).await;
    crate::running::until("the server is ready", || running.handle.is_ready()).await;
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_and_the_openapi_document_are_served() {
    let running = start(|_| {}).await;
    let document = get(running.address, "/openapi.json").await;
    assert!(document.json()["paths"].as_object().unwrap().len() > 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_page_that_the_browser_has_is_not_sent_again() {
    let running = start(|_| {}).await;
    for asset in jointly_server::playground::assets() {
        let first = get(running.address, asset.path).await;
        assert_eq!((first.status.as_u16(), &first.body[..]), (200, asset.body), "{}", asset.path);
        assert_eq!(
            first.header("content-security-policy"),
            jointly_server::playground::CONTENT_SECURITY_POLICY
        );
        let tag = first.header("etag").to_string();
        for (known, status) in [(tag.clone(), 304), (format!("\"x\", W/{tag}"), 304), ("\"x\"".into(), 200)] {
            let headers = [("if-none-match", known.as_str())];
            let again =
                crate::client::send(running.address, crate::client::request("GET", asset.path, &headers, ""))
                    .await;
            assert_eq!(again.status, status, "{known}");
            assert_eq!(again.body.is_empty(), status == 304);
            assert_eq!(again.header("etag"), tag);
        }
    }
}
