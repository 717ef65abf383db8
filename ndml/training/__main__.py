import sys

from ndml.training.worker import main

sys.exit(main())
