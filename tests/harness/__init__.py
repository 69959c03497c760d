"""What tests share: a real server, and words to talk to it."""
