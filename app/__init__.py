"""StateService: charts that sequence work over many machines, asked and told over HTTP."""
