"""The storybook world: drawn scenes whose truth is known, and the training of the bundled models on them."""
