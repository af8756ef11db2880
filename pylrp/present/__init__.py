"""What terminals, plots and reports share: how names, numbers, causes and tables are written."""
