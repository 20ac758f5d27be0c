"""What a user may ask of each stage: one file a stage, in the order data flows; a new method adds its model there."""
