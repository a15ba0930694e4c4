"""What is asked of an editor: edits of drawn scenes whose truth is known, and published benchmarks."""
