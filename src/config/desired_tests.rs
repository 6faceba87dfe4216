//! Tests of `desired`.
