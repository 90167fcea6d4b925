"""The pages for people: server-rendered, over the same service calls as everything else."""
