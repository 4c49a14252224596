"""The databases of the generated `mini` data: sixteen for training, four for test only, six single tables more."""

from __future__ import annotations

from text2sql.data.mini_schema import domain

FIRST = "Ana|Ben|Carla|David|Elena|Frank|Grace|Hugo|Irene|Jonas|Karin|Liam|Mona|Nina|Oscar|Paula|Ravi|Sofia|Tom|Vera"
LAST = "Adams|Brown|Costa|D'Souza|Evans|Fischer|Garcia|Hansen|Jones|Keller|Lopez|Moreau|Novak|O'Brien|Patel|Rossi|Smith"

# Texts of a row's label: every first part goes with every second part.
POOLS = {
    "person": (FIRST, LAST),
    "title": (
        "Silver|Golden|Hidden|Last|Quiet|Broken|First|Winter|Summer|King's|Baker's|Blue|Long|Lost",
        "River|Garden|Road|Night|Letter|Storm|Island|Mirror|Secret|Journey|Winner",
    ),
    "place": (
        "Grand|Royal|Park|Lake|Old|North|Sunny|Queen's|Green|Central|Harbour|Hill",
        "House|Palace|Corner|Hall|View",
    ),
    "dish": ("Spicy|Fresh|Grilled|Creamy|Chef's|Roasted|Sweet|Baked", "Soup|Salad|Chicken|Rice|Pasta|Fish|Pie|Noodles"),
    "car": ("Astra|Polaris|Vento|Orion|Luna|Terra|Nova|Zephyr", "100|200|300|GT|LX"),
    "farm": ("Oak|Maple|Miller's|Cedar|Willow|Stone|Fox|Shepherd's|Clover|Eagle", "Farm|Fields|Valley|Ranch"),
    "club": ("River|City|North|United|Royal|Eastern|Harbour|St. John's", "Lions|Eagles|Rovers|Stars|Wolves"),
    "street": ("Oak|Elm|King's|Mill|Church|Station|Park|Bishop's|Lake|Rose|Bridge", "Street|Lane|Avenue|Road"),
    "wine": ("Old|Red|White|Monk's|Golden|Late|Cellar|Royal|Stone", "Reserve|Harvest|Oak|Ridge|Valley|Blend"),
    "mission": ("Apollo|Vega|Aurora|Odin|Nova|Halley's|Pioneer|Titan|Comet", "1|2|3|4|5|6"),
    "firm": ("Alpha|Blue|Delta|Nordic|Ocean|Prime|Smith's|Terra|Urban|Solar|Atlas", "Group|Works|Labs|Trade|Partners"),
    "mail": ("ana|ben|carl|dina|eva|finn|gus|hana|ivo|jan|kim|leo", "@mail.com|@post.org|@web.net"),
    "city": ("Oslo|Paris|Rome|Madrid|Berlin|Vienna", ""),
    "country": ("France|Italy|Spain|Norway|Japan|Brazil", ""),
}

TRAIN = (
    domain(
        "shop",
        "Customers of a shop and their orders.",
        "customers/customer: id name@person city=city age:18-75",
        "orders/order: id customer_id>customers total:20-900 order_date:date",
    ),
    domain(
        "library",
        "Authors, books and loans of a library.",
        "authors/author: id name@person country=country",
        "books/book: id title@title author_id>authors pages:90-700 genre=novel|history|poetry|science",
        "loans/loan: id book_id>books loan_date:date return_date:date?",
    ),
    domain(
        "school",
        "Students and the courses they take.",
        "students/student: id name@person age:12-60 class=A|B|C|D",
        "courses/course: id title@title credits:2-40",
        "enrolments/enrolment: student_id>students course_id>courses score:40-100",
    ),
    domain(
        "airline",
        "Pilots and flights of an airline.",
        "pilots/pilot: id name@person age:25-62 country=country",
        "flights/flight: id pilot_id>pilots origin=city destination=country distance:200-9000",
    ),
    domain(
        "hotels",
        "Hotels and their rooms.",
        "hotels/hotel: hotel_id name@place city=city floors:2-40",
        "rooms/room: room_id hotel_id>hotels type=single|double|suite price:45-400",
    ),
    domain(
        "gym",
        "Members of a gym and their payments.",
        "members/member: id name@person plan=basic|plus|premium age:16-70 email@mail?",
        "payments/payment: id member_id>members amount:15-200 day:date",
    ),
    domain(
        "museums",
        "Museums and their paintings.",
        "museums/museum: id name@place city=city visitors:1000-90000",
        "paintings/painting: id title@title museum_id>museums style=abstract|portrait|landscape year:1600-1990",
    ),
    domain(
        "restaurant",
        "The menu of a restaurant.",
        "dishes/dish: id name@dish category=starter|main|dessert|side price:4.50-32.00 calories:120-990 note@title?",
    ),
    domain(
        "farms",
        "Farms and their animals.",
        "farms/farm: id name@farm county=Kent|Devon|Essex|Surrey acres:40-900",
        "animals/animal: id farm_id>farms species=cow|sheep|goat|horse|pig weight:30-800 birth_date:date",
    ),
    domain(
        "car_rental",
        "Cars and their rentals.",
        "cars/car: car_id model@car fuel=petrol|diesel|electric seats:2-9 rate:25-180",
        "rentals/rental: rental_id car_id>cars days:1-30 start_date:date return_date:date?",
    ),
    domain(
        "music",
        "Artists, their albums and songs.",
        "artists/artist: id name@person country=country followers:500-90000",
        "albums/album: id title@title artist_id>artists year:1975-2023",
        "songs/song: id title@title album_id>albums seconds:120-420",
    ),
    domain(
        "football",
        "Teams and players of a football league.",
        "teams/team: id name@club city=city points:10-95",
        "players/player: id name@person team_id>teams position=keeper|defender|midfielder|striker goals:0-40",
    ),
    domain(
        "bank",
        "Clients, accounts and transfers of a bank.",
        "clients/client: id name@person city=city birth_year:1940-2003",
        "accounts/account: id client_id>clients type=savings|current|joint balance:50-9000",
        "transfers/transfer: id account_id>accounts amount:10-900 day:date",
    ),
    domain(
        "logistics",
        "Shipments between warehouses, by drivers and trucks.",
        "drivers/driver: id name@person age:21-65",
        "trucks/truck: id brand=Volvo|Scania|Iveco capacity:500-9000",
        "warehouses/warehouse: id name@place city=city",
        "clients/client: id name@firm country=country",
        "shipments/shipment: id driver_id>drivers truck_id>trucks "
        "warehouse_id>warehouses client_id>clients weight:20-900",
    ),
    domain(
        "cinema",
        "Films shown in cinemas.",
        "films/film: id title@title genre=drama|comedy|horror|action year:1970-2023",
        "cinemas/cinema: id name@place city=city",
        "screenings/screening: id film_id>films cinema_id>cinemas tickets:5-300 day:date",
    ),
    domain(
        "college",
        "Departments of a college and their professors.",
        "departments/department: department_id name@firm building=North|South|East|West budget:20000-900000",
        "professors/professor: professor_id name@person department_id>departments salary:40000-99000 office:100-900?",
    ),
)

# Never in any training rows, so that the test asks about databases the model has not seen.
TEST = (
    domain(
        "real_estate",
        "Estate agents and the houses they sell.",
        "agents/agent: id name@person city=city experience:1-40",
        "houses/house: id street@street agent_id>agents bedrooms:1-9 price:90000-950000 sold_date:date?",
    ),
    domain(
        "clinic",
        "Doctors, patients and visits of a clinic.",
        "doctors/doctor: id name@person specialty=cardiology|surgery|pediatrics|neurology",
        "patients/patient: id name@person age:1-95 blood_type=A|B|AB|O",
        "visits/visit: id doctor_id>doctors patient_id>patients fee:30-400 visit_date:date",
    ),
    domain(
        "wineries",
        "Wineries and their wines.",
        "wineries/winery: winery_id name@farm region=Rioja|Tuscany|Alsace|Douro size:5-300",
        "wines/wine: wine_id name@wine winery_id>wineries grape=Merlot|Syrah|Pinot|Malbec score:60-99 price:5-250",
    ),
    domain(
        "space",
        "Space agencies and their missions.",
        "agencies/agency: id name@firm country=country staff:200-9000",
        "missions/mission: id name@mission agency_id>agencies cost:10-900 launch_date:date",
    ),
)

GRETEL_ONLY = (
    domain(
        "weather",
        "Weather stations.",
        "stations/station: id name@place zone=coast|valley|hill rain:1-90 temperature:1-40",
    ),
    domain(
        "charity", "Gifts to charities.", "donations/donation: id donor@person cause=health|food|water amount:5-900"
    ),
    domain(
        "energy", "Power plants.", "plants/plant: id name@firm source=solar|wind|hydro|gas output:10-900 year:1960-2022"
    ),
    domain("fishing", "Fishing boats.", "boats/boat: id name@wine port=city catch:20-900 last_trip:date"),
    domain("mining", "Mines.", "mines/mine: id name@farm mineral=gold|copper|coal|iron tons:50-9000 workers:10-400"),
    domain(
        "software",
        "Bugs of software projects.",
        "bugs/bug: id title@title severity=low|medium|high hours:1-90 closed:date?",
    ),
)
