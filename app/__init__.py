"""The page: everything that knows about Gradio, and nothing else."""
