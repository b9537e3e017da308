//! Paging: reads a list page by page, to its end.

use stead_types::Error;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::{channel::Channel, state::ClientState};

/// Page of a list.
pub(crate) struct ListPage<T> {
    pub(crate) items: Vec<T>,
    /// Page token of the next page; empty at the end.
    pub(crate) next_page_token: String,
}

impl ClientState {
    /// Returns all items of a list, whose first page `request` asks for.
    pub(crate) async fn list<Q: Clone, A, T>(
        &self,
        mut request: Q,
        deadline: Instant,
        call: impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status> + Copy,
        set_page_token: fn(&mut Q, String),
        page: fn(A) -> ListPage<T>,
    ) -> Result<Vec<T>, Error> {
        let mut items = Vec::new();
        loop {
            let page = page(self.unary(request.clone(), deadline, true, call).await?);
            items.extend(page.items);
            if page.next_page_token.is_empty() {
                return Ok(items);
            }
            set_page_token(&mut request, page.next_page_token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[tokio::test]
    async fn list_is_read_in_order_until_page_without_next_token() {
        let state = ClientState::new(Config::new(["127.0.0.1:1"])).unwrap();
        let call = async |_, request: Request<String>| {
            let (items, next) = match request.into_inner().as_str() {
                "" => (vec![1, 2], "b"),
                "b" => (Vec::new(), "c"),
                "c" => (vec![3], ""),
                other => return Err(Status::invalid_argument(other)),
            };
            let next_page_token = next.to_owned();
            Ok(Response::new(ListPage { items, next_page_token }))
        };
        let set_page_token = |request: &mut String, page_token| *request = page_token;
        let listed = state.list(String::new(), state.deadline(None), call, set_page_token, |page| page);
        assert_eq!(listed.await, Ok(vec![1, 2, 3]));
    }
}
