"""Two tabs that edit while the connection is cut, the program killed, the disk full and the database taken away.

python -m benchmarks.chaos [--minutes 30] [--seed 0]

After it, what a tab was told to be saved is in the database, every act was answered, none was done twice, and nothing
that a person reads is a traceback. The choices follow the seed; when they meet each other is left to the machine.
"""
