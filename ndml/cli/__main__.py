from ndml.cli import main

main()
