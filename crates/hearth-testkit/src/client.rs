//! A small HTTP client: one connection per request, so that nothing is left over from a server that went.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// A request to be.
#[derive(Clone, Debug)]
#[must_use]
pub struct Request {
    target: Target,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Request {
    /// A request without a body.
    pub fn new(target: &Target, method: &str, path: &str) -> Self {
        let method = method.parse().expect("a method");
        Self { target: target.clone(), method, path: path.to_owned(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().expect("a header value"));
        self
    }

    /// Adds an access token.
    pub fn token(self, access_token: &str) -> Self {
        self.header("authorization", &format!("Bearer {access_token}"))
    }

    /// Gives it a body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Gives it a JSON body.
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// Sends it and waits for the answer.
    pub async fn send(self) -> Answer {
        self.try_send().await.expect("an answer")
    }

    /// The same where no answer may come.
    pub async fn try_send(self) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        match self.target.clone() {
            Target::Tcp(address) => self.send_over(TcpStream::connect(address).await?).await,
            Target::Unix(path) => self.send_over(UnixStream::connect(path).await?).await,
        }
    }

    /// Sends it over a stream that is open already.
    pub async fn send_over<S>(self, stream: S) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let mut request = self.into_http("")?;
        request.headers_mut().insert("host", "hearth.test".parse()?);
        let answer = Answer::read(sender.send_request(request).await?).await?;
        drop(sender);
        let _ = driver.await;
        Ok(answer)
    }

    /// The same with HTTP/2.
    pub async fn send_over_http2<S>(self, stream: S) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Answer::read(sender.send_request(self.into_http("https://hearth.test")?).await?).await?)
    }

    fn into_http(self, origin: &str) -> Result<http::Request<Full<Bytes>>, http::Error> {
        let uri = format!("{origin}{}", self.path);
        let mut request = http::Request::builder().method(self.method).uri(uri).body(Full::new(self.body))?;
        *request.headers_mut() = self.headers;
        Ok(request)
    }
}

impl Answer {
    async fn read(response: http::Response<Incoming>) -> hyper::Result<Self> {
        let (parts, body) = response.into_parts();
        Ok(Self { status: parts.status.as_u16(), headers: parts.headers, body: body.collect().await?.to_bytes() })
    }

    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Status and Matrix code.
    pub fn refusal(&self) -> (u16, String) {
        (self.status, self.json()["errcode"].as_str().unwrap_or_default().to_owned())
    }
}

/// A user with a session.
#[derive(Clone, Debug)]
pub struct User {
    pub(crate) target: Target,
    /// The full user id.
    pub user_id: String,
    /// The session's access token.
    pub access_token: String,
    /// The session's device.
    pub device_id: String,
}

impl User {
    /// A request of this user.
    pub fn request(&self, method: &str, path: &str) -> Request {
        Request::new(&self.target, method, path).token(&self.access_token)
    }

    /// `GET`: status and body.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        status_and_json(self.request("GET", path)).await
    }

    /// `POST`: status and body.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        status_and_json(self.request("POST", path).json(body)).await
    }

    /// `PUT`: status and body.
    pub async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        status_and_json(self.request("PUT", path).json(body)).await
    }

    /// `DELETE`: status and body.
    pub async fn delete(&self, path: &str) -> (u16, Value) {
        status_and_json(self.request("DELETE", path)).await
    }

    /// The same user with another session.
    pub fn with_session(&self, access_token: &str, device_id: &str) -> Self {
        Self { access_token: access_token.to_owned(), device_id: device_id.to_owned(), ..self.clone() }
    }

    /// The same user and session, on a server that may listen elsewhere now.
    pub fn at(&self, target: Target) -> Self {
        Self { target, ..self.clone() }
    }
}

pub(crate) async fn status_and_json(request: Request) -> (u16, Value) {
    let answer = request.send().await;
    (answer.status, answer.json())
}
