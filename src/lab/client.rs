//! The lab as a client of the server's API.
use super::error::LabError;
use crate::api::client::{Address, Client as ApiClient, ClientError};
use hyper::Method;
use serde_json::Value;
use std::cell::RefCell;
use std::path::PathBuf;

pub(super) struct Client(RefCell<ApiClient>);

fn failed(call: &str) -> impl FnOnce(ClientError) -> LabError + '_ {
    move |error| LabError::Server {
        call: call.to_owned(),
        detail: crate::rt::chain(&error),
    }
}

fn path(call: &str) -> String {
    format!("/api/v1/vaults/default/{call}")
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Result<Self, LabError> {
        let client = ApiClient::new(Address::Unix(socket), None, None).map_err(failed("connect"))?;
        Ok(Self(RefCell::new(client)))
    }

    pub(super) fn get(&self, call: &str) -> Result<Value, LabError> {
        self.0.borrow_mut().get(&path(call)).map_err(failed(call))
    }

    pub(super) fn post(&self, call: &str, body: &Value) -> Result<Value, LabError> {
        self.0.borrow_mut().post(&path(call), body).map_err(failed(call))
    }

    pub(super) fn list(&self, call: &str) -> Result<Vec<Value>, LabError> {
        self.0
            .borrow_mut()
            .list(&path(call), usize::MAX)
            .map_err(failed(call))
    }

    pub(super) fn text(&self, call: &str) -> Result<String, LabError> {
        let answer = self.0.borrow_mut().request(Method::GET, &path(call), None, &[]);
        let answer = answer.map_err(failed(call))?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }
}
