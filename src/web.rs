//! Embedded web pages.
