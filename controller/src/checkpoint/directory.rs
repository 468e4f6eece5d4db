//! Which place of each page counts, and in which form the pages are.

use serde::{Deserialize, Serialize};

/// The form of pages. It changes with the shape of a device, which `page`'s tests watch over; a checkpoint of another
/// form is built again from the ledger.
const FORM: u32 = 3;

/// The directory of pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    form: u32,
    /// By page.
    places: Vec<bool>,
}

impl Default for Directory {
    fn default() -> Self {
        Self { form: FORM, places: Vec::new() }
    }
}

impl Directory {
    /// Reads a directory; none if it is of another form.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok().filter(|directory: &Self| directory.form == FORM)
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(self)
    }

    /// Has the other place of a page count, a new page's first one, and returns which that is.
    pub(super) fn turn(&mut self, page: u32) -> bool {
        let page = page as usize;
        if page >= self.places.len() {
            self.places.resize(page + 1, true);
        }
        self.places[page] = !self.places[page];
        self.places[page]
    }

    /// Walks the pages, each with the place that counts.
    pub(super) fn pages(&self) -> impl Iterator<Item = (u32, bool)> {
        (0..).zip(self.places.iter().copied())
    }
}
