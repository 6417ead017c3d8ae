"""One module for each way to train that is measured; each has `measure(run, model, watch)`."""
