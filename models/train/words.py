"""Common English words of three to eight letters, for spelling and reversing. None of them is a word that the tasks' own sentences use."""

WORDS = tuple(
    """
able acid acorn actor after again album alley amber anchor angel animal ankle answer apple april apron arch arrow artist atlas attic aunt autumn award
baby bacon badge bag baker ball balloon banana band bank barn basket bath beach bean bear bed bee bell bench berry bike bird black blanket block blue
boat body bone book boot bottle bowl box branch bread brick bridge brook broom brother brown brush bucket bus bush butter button cabin cabbage cable cake
camel camera camp candle candy canoe canyon car card carpet carrot castle cat cave cellar chair chalk cheese cherry chess chicken circle  clay clean
cliff clock cloud clover coat cobra coconut coffee coin cold color comet cook copper coral corn cotton cow crab cradle cream creek crow crown cup curtain
daisy dance dawn deer delta desert desk diamond dinner dish doctor dog doll dolphin donkey door dove dragon dream dress drum duck dune dust eagle ear
earth east easy echo edge egg elbow elephant elm ember  evening eye fabric face falcon family farm feather fence fern ferry field finger fire fish flag
flame flint floor flour flower flute fog forest fork fox frame friend frog frost fruit garden garlic gate gear ghost giant ginger giraffe glass globe glove
goat gold goose grain grape grass gravel green guitar hair hammer hand harbor harp hat hawk hazel heart hedge helmet herb heron hill honey hook horse hotel
hour house ice idea igloo index iron island ivory ivy jacket jam jar jazz jelly jewel jungle kettle  king kitchen kite kitten knee knife knot ladder lake
lamb lamp lantern lark lava lawn leaf leather lemon lens  lettuce light lily lime linen lion lizard llama lobster lock log lotus  magnet mango
map maple marble market mask meadow medal melon metal milk mill mirror mist mitten monkey moon morning moss moth motor mountain mouse mouth music nail 
napkin needle nest net night noodle north nose note nut oak oasis oat ocean olive onion orange orchid otter oven owl ox oyster paint palace palm panda paper
park parrot path peach peanut pear pearl pebble pencil pepper piano pickle picture pig pillow pilot pine pink pipe planet plant plate plum pocket poem pond
pony poppy potato prince pump purple puzzle queen quiet quilt rabbit radio rain raven red reed rice ring river road robin robot rock roof room root rope rose
ruby rug sail salad salt sand school sea seal seed shadow shark sheep shell ship shirt shoe silk silver singer sister sky sled smoke snail snake snow soap
sock soup south spider spoon spring square squid star steam stone storm street string sugar summer sun swan table tail tea teapot tent thunder tiger tin toad
toast tomato tower town train tree truck trumpet tulip turtle umbrella uncle valley vase velvet village violin wagon wall walnut water wave wax west whale
wheat wheel white wind window wing winter wolf wood wool yard yarn year yellow zebra
""".split()
)
